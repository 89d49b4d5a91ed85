from memr1.agents.answer_agent import AnswerAgent, AnswerRequest, retrieve_for_question
from memr1.agents.generation import ScriptedGenerator
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryBank
from tests.builders import entry

MEMORIES = (entry("4", "Ann lives in Rome"), entry("6", "Ann has a cat"))


def ask(reply: str, memories: tuple = MEMORIES):  # type: ignore[no-untyped-def]
    generator = ScriptedGenerator(lambda _: reply)
    request = AnswerRequest(question_id="q", question="Where does Ann live?", memories=memories)
    return AnswerAgent(generator, "compact", 32).answer([request])[0]


def test_an_answer_names_the_entries_it_rests_on() -> None:
    answer = ask('{"about":"Ann lives in","memories":[{"text":"Ann lives in Rome","id":1}],"answer":"Rome"}')
    assert (answer.text, answer.memory_ids, answer.failure) == ("Rome", ("4",), None)


def test_an_unreadable_output_is_an_empty_answer_that_keeps_the_text() -> None:
    answer = ask("Rome, I think")
    assert (answer.text, answer.memory_ids, answer.failure, answer.completion) == ("", (), *2 * ("Rome, I think",))


def test_no_requests_ask_no_model() -> None:
    assert AnswerAgent(ScriptedGenerator([]), "compact", 32).answer([]) == []


def test_retrieval_goes_speaker_by_speaker_best_first_and_at_most_so_many_of_each() -> None:
    held = [
        entry("1", "Bob drives a Fiat", speaker="Bob"),
        entry("2", "Ann has a cat"),
        entry("3", "Ann lives in Rome"),
        entry("4", "Bob lives in Oslo", speaker="Bob"),
        entry("5", "Ann likes tea"),
    ]
    bank = InMemoryBank("c1", HashEmbedder(), entries=held)
    found = retrieve_for_question(bank, "Who lives in Rome?", ["Ann", "Bob", "Cid"], 2)
    assert [item.speaker for item in found] == ["Ann", "Ann", "Bob", "Bob"]
    assert (found[0].id, found[2].id) == ("3", "4")
