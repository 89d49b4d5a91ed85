import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memr1.agents.fact_extractor import (
    ModelExtractor,
    ObservationExtractor,
    RememberingExtractor,
    Spoken,
    TurnExtractor,
    build_extractor,
    parse_facts,
)
from memr1.agents.generation import ScriptedGenerator
from memr1.config import ExtractionConfig
from memr1.data.conversation import Conversation, Fact, Turn
from memr1.errors import ConfigError
from memr1.model_options import ScriptedModel
from tests.builders import conversation


def spoken(item: Conversation) -> list[Spoken]:
    return [(item, session, turn) for session, turn in item.turns()]


def texts(facts: list[list[Fact]]) -> list[list[str]]:
    return [[fact.text for fact in found] for found in facts]


def test_a_turn_is_its_own_fact_on_one_line_introduced_by_its_speaker() -> None:
    item = conversation(lines=[("Ann", "I live\n in  Rome."), ("Bob", "  ")])
    assert TurnExtractor().extract(spoken(item)) == [
        [Fact(speaker="Ann", text="Ann: I live in Rome.", turn_id="D1:1")],
        [],
    ]


def test_an_image_is_told_by_its_caption() -> None:
    turn = Turn(id="D1:1", speaker="Ann", text="Look!", image_caption="a red barn")
    session = conversation().sessions[0].model_copy(update={"turns": (turn,)})
    item = conversation().model_copy(update={"sessions": (session,)})
    assert texts(TurnExtractor().extract(spoken(item))) == [["Ann: Look! [shares an image: a red barn]"]]


def test_observations_are_found_by_their_turn() -> None:
    facts = [Fact(speaker="Bob", text=text, turn_id="D1:2") for text in ("Bob drives.", "Bob has a Fiat.")]
    item = conversation(facts=facts)
    assert ObservationExtractor().extract(spoken(item)) == [[], facts]


def test_a_conversation_without_observations_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"'c1' came with none: use turn or llm"):
        ObservationExtractor().extract(spoken(conversation()))


def test_conversations_of_one_name_keep_their_own_observations() -> None:
    extractor = ObservationExtractor()
    for text in ("one", "two"):
        item = conversation(facts=[Fact(speaker="Ann", text=text, turn_id="D1:1")])
        assert texts(extractor.extract(spoken(item))) == [[text], []]


def test_a_model_reads_each_turn_with_the_three_before_it() -> None:
    lines = [("Ann", f"line {number}.") for number in range(6)]
    generator = ScriptedGenerator(lambda _: '{"facts": ["Ann counts."]}')
    facts = ModelExtractor(generator, 64).extract(spoken(conversation(lines=lines))[4:5])
    assert facts == [[Fact(speaker="Ann", text="Ann counts.", turn_id="D1:5")]]
    shown = [line for line in generator.prompts[0].splitlines() if line.startswith("Ann: ")]
    assert shown == [f"Ann: line {number}." for number in (1, 2, 3, 4)]


def test_a_reply_that_cannot_be_read_gives_no_fact_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    extractor = ModelExtractor(ScriptedGenerator(['{"facts": ["Ann lives in Rome."]}', "Nothing here."]), 64)
    assert texts(extractor.extract(spoken(conversation()))) == [["Ann lives in Rome."], []]
    assert extractor.num_unreadable == 1
    assert "turn D1:2 of c1" in caplog.text and "Nothing here." in caplog.text


@pytest.mark.parametrize(
    ("reply", "facts"),
    [
        ('{"facts": ["a", " b\\nc ", "", 3]}', ["a", "b c"]),
        ('```json\n{"facts": []}\n```', []),
        ('<think>{"facts": ["x"]}</think>Here: {"facts": ["a"]} Done.', ["a"]),
        ('{"facts": "a"}', None),
        ('["a"]', None),
        ("no JSON", None),
        ('{"a":' * 100_000, None),
        ("", None),
    ],
)
def test_replies_are_read(reply: str, facts: list[str] | None) -> None:
    assert parse_facts(reply) == facts


@given(st.text() | st.text('{}[]":,factsab \\\n', max_size=80), st.lists(st.text(max_size=9), max_size=4))
def test_reading_a_reply_never_raises_and_round_trips(text: str, facts: list[str]) -> None:
    parse_facts(text)
    assert parse_facts(json.dumps({"facts": facts})) == [" ".join(fact.split()) for fact in facts if fact.strip()]


class CountingExtractor:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def extract(self, turns: list[Spoken]) -> list[list[Fact]]:  # type: ignore[override]
        self.asked += [turn.id for _, _, turn in turns]
        number = len(self.asked)
        return [[Fact(speaker="Ann", text=f"{turn.id} at {number}", turn_id=turn.id)] for _, _, turn in turns]


def test_what_was_found_once_is_remembered_across_processes(tmp_path: Path) -> None:
    path, asked = tmp_path / "cache" / "facts.jsonl", CountingExtractor()
    turns = spoken(conversation())
    first = RememberingExtractor(asked, path, "m").extract(turns[:1])
    again = RememberingExtractor(asked, path, "m").extract(turns)
    assert again[0] == first[0] and asked.asked == ["D1:1", "D1:2"]
    RememberingExtractor(asked, path, "another model").extract(turns[:1])
    assert asked.asked == ["D1:1", "D1:2", "D1:1"]


def test_the_first_process_to_write_decides_for_all(tmp_path: Path) -> None:
    path, turns = tmp_path / "facts.jsonl", spoken(conversation())
    early, late = (RememberingExtractor(CountingExtractor(), path, "m") for _ in range(2))
    found = early.extract(turns)
    assert late.extract(turns) == found


def test_a_line_that_a_kill_cut_off_spoils_only_itself(tmp_path: Path) -> None:
    path, asked, turns = tmp_path / "facts.jsonl", CountingExtractor(), spoken(conversation())
    RememberingExtractor(asked, path, "m").extract(turns)
    path.write_bytes(path.read_bytes()[:-20])
    RememberingExtractor(asked, path, "m").extract(turns)
    assert asked.asked == ["D1:1", "D1:2", "D1:2"]
    assert RememberingExtractor(CountingExtractor(), path, "m").extract(turns)[0][0].text == "D1:1 at 2"
    RememberingExtractor(asked, path, "m").extract(turns)
    assert len(asked.asked) == 3


def test_several_threads_may_share_the_file(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    turns = spoken(conversation(lines=[("Ann", f"line {number}") for number in range(30)]))
    found: list[list[list[Fact]]] = []

    def read() -> None:
        extractor = RememberingExtractor(CountingExtractor(), path, "m")
        found.append([extractor.extract([turn])[0] for turn in turns])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(item == found[0] for item in found) and len(path.read_text().splitlines()) == 30


def test_the_configuration_chooses_the_extractor(tmp_path: Path) -> None:
    assert isinstance(build_extractor(ExtractionConfig()), TurnExtractor)
    assert isinstance(build_extractor(ExtractionConfig(kind="observations")), ObservationExtractor)
    with pytest.raises(ConfigError, match=r"extraction\.generator"):
        build_extractor(ExtractionConfig(kind="llm"))
    model = ScriptedModel(kind="scripted", reply='{"facts": ["Ann exists."]}')
    extractor = build_extractor(ExtractionConfig(kind="llm", generator=model), tmp_path / "facts.jsonl")
    assert texts(extractor.extract(spoken(conversation()))) == [["Ann exists."], ["Ann exists."]]
