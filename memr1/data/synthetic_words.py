"""The vocabulary of the synthetic world. Which split a word belongs to is fixed here and depends on no seed.

So a model that was shown training words, whatever the seed, has never seen a name or value it is tested on.
"""

from functools import cache

from memr1.data.conversation import SplitName

# Place of a word in its list, modulo 10, → its split.
_SPLIT_OF_PLACE: tuple[SplitName, ...] = (
    "train", "test", "train", "validation", "train", "test", "train", "test", "train", "validation",
)  # fmt: skip

MAX_EASY_LETTERS = 7

NAMES = """
Marta Pavel Ingrid Bruno Selma Dario Noemi Viktor Tamsin Oskar Leila Mirko Petra Hamid Clara Jonas Fatima Ruben Agnes
Tobias Yara Stefan Bianca Emil Nadia Curtis Odile Rafael Hanna Gideon Paloma Anton Sigrid Kofi Elodie Marek Zainab
Hugo Livia Declan Amara Felix Greta Ismail Judith Karim Lorna Matteo Nora Otto Priya Quentin Rosa Samuel Thea Ulrich
Vera Walter Ximena Yusuf Zelda Adrian Brenda Conrad Doris Edmund Flora Gustav Helena Ivan Jasmin Klaus Lucia Moritz
Nigel Olga Philip Renata Simon Teresa Urban Violet Wendy Xavier Yvonne Zoltan Alexandra Benedikt Caroline Dominique
Esmeralda Frederick Gwendolyn Humphrey Isabella Jeremiah Katharina Leonardo Magdalena Nathaniel Octavia Penelope
Rosalind Sebastian Theodora Valentina Wilhelmina Anastasia Bartholomew Cassandra Desmond Evangeline
"""

VALUES: dict[str, str] = {
    "city": """Lisbon Rome Oslo Madrid Vienna Dublin Prague Geneva Athens Munich Berlin Naples Turin Krakow Porto Lyon
        Leeds Bergen Seville Hamburg Bristol Cardiff Zurich Warsaw Vilnius Riga Tallinn Malmo Utrecht Ghent Bruges Arles
        Dresden Leipzig Verona Bologna Genoa Palermo Granada Bilbao Glasgow Belfast Cork Galway Aarhus Odense Tampere
        Turku Basel Lucerne Salzburg Innsbruck Edinburgh Marseille Barcelona Rotterdam Copenhagen Stuttgart Ljubljana
        Luxembourg""",
    "job": """baker nurse lawyer plumber teacher painter barber tailor farmer pilot dentist banker butcher chemist
        driver surgeon welder miner singer drummer dancer writer poet judge clerk grocer waiter cleaner porter guard
        sailor fisher potter weaver roofer mason tiler gardener florist jeweller broker tutor coach referee vet
        lecturer librarian carpenter mechanic translator physicist biologist journalist paramedic programmer
        bookkeeper cartographer conservator photographer veterinarian""",
    "dog": """Rex Bello Pongo Waffle Biscuit Scout Rusty Bandit Pepper Comet Ziggy Maple Hazel Clover Tango Bingo Noodle
        Pickle Truffle Cocoa Mocha Ginger Smokey Shadow Thunder Storm Blaze Ranger Hunter Copper Bolt Rocket Tucker
        Buster Duke Boomer Gizmo Murphy Sparky Dusty Nugget Peanut Sesame Olive Basil Juniper Willow Aspen Cedar Jasper
        Marshmallow Buttercup Snowflake Huckleberry Moonlight Dandelion Cinnamon Butterscotch Pumpernickel
        Thunderbolt""",
    "car": """Volvo Fiat Toyota Honda Mazda Subaru Skoda Renault Peugeot Citroen Scania Seat Saab Lada Kia Hyundai
        Nissan Suzuki Lexus Jaguar Bentley Porsche Bedford Lancia Maserati Ferrari Tesla Dacia Daihatsu Tatra Ford Chevy
        Dodge Buick Pontiac Lincoln Jeep Rover Triumph Lotus Morgan Vauxhall Simca Trabant Wartburg Polestar Proton
        Bugatti Daewoo Daimler Volkswagen Mitsubishi Mercedes Chevrolet Lamborghini Studebaker Packard Plymouth Cadillac
        Chrysler""",
    "instrument": """guitar violin cello flute harp piano trumpet banjo drums tuba clarinet bassoon ukulele lute lyre
        organ fiddle zither sitar oboe cornet bugle viola gong bongo recorder whistle bagpipe kazoo horn triangle
        cymbals maracas tabla koto erhu shamisen dulcimer mandola spinet piccolo timpani marimba celesta theremin
        fife rebec vielle sackbut psaltery accordion harmonica xylophone saxophone mandolin trombone tambourine
        harpsichord glockenspiel vibraphone""",
    "language": """Greek Latin Danish Polish Turkish Arabic Hebrew Czech Finnish Swedish Russian Korean Hindi Urdu Welsh
        Irish Basque Catalan Maltese Slovak Serbian Bosnian Persian Kurdish Pashto Tamil Telugu Punjabi Bengali Nepali
        Tibetan Burmese Khmer Lao Thai Malay Tagalog Maori Samoan Hausa Yoruba Igbo Zulu Xhosa Swahili Somali Amharic
        Quechua Guarani Breton Portuguese Norwegian Hungarian Lithuanian Ukrainian Bulgarian Vietnamese Indonesian
        Icelandic Macedonian""",
    "dish": """risotto lasagna pierogi goulash paella ramen curry stew omelet falafel hummus burrito taco pizza gnocchi
        ravioli noodles dumplings chowder gumbo pancake waffles couscous tagine kebab moussaka souffle quiche fondue
        raclette biryani samosa sushi tempura udon laksa rendang satay bibimbap kimchi borscht blini polenta tortilla
        ceviche empanada tamales chili porridge granola ratatouille bouillabaisse carbonara stroganoff enchiladas
        minestrone bruschetta cannelloni jambalaya shakshuka""",
    "plant": """tulips roses lilies orchids daisies poppies violets irises peonies dahlias asters pansies ferns mosses
        cacti hostas begonia azaleas tomatoes carrots onions garlic leeks radish turnips beets spinach lettuce cabbage
        kale celery fennel parsley sage thyme mint chives oregano pumpkins squash melons grapes figs plums cherries
        peaches pears apples quinces berries sunflowers geraniums hydrangeas chrysanthemums rosemary cucumbers
        artichokes raspberries aubergines marigolds""",
    "country": """Norway Italy Spain Japan Brazil Chile Peru Cuba Mexico Canada Egypt Kenya Ghana Morocco Tunisia Jordan
        Oman Qatar India Nepal Bhutan China Vietnam Laos Iceland Ireland Belgium Austria Croatia Serbia Albania Greece
        Turkey Cyprus Malta Estonia Latvia Finland Denmark Sweden France Germany Poland Ukraine Georgia Armenia
        Fiji Samoa Tonga Panama Portugal Switzerland Argentina Madagascar Mozambique Tanzania Guatemala Indonesia
        Uzbekistan Mauritius""",
    "thing": """coins stamps shells buttons postcards maps medals badges fossils crystals marbles dolls teapots spoons
        clocks watches lamps masks puppets kites posters comics records cassettes cameras radios bottles labels
        corks thimbles keys locks knives swords helmets hats scarves ribbons beads feathers stones pebbles acorns
        tickets banners flags globes prints mirrors snowglobes typewriters telescopes lighthouses matchboxes
        phonographs gramophones manuscripts thermometers paperweights butterflies""",
    "month": """January February March April May June July August September October November December""",
}


@cache
def list_words(kind: str, split: SplitName, *, easy: bool) -> tuple[str, ...]:
    """The names (kind "name") or values of a kind that belong to a split; easy: those of at most 7 letters."""
    words = (NAMES if kind == "name" else VALUES[kind]).split()
    chosen = [word for place, word in enumerate(words) if _SPLIT_OF_PLACE[place % 10] == split]
    return tuple(word for word in chosen if not easy or len(word) <= MAX_EASY_LETTERS)
