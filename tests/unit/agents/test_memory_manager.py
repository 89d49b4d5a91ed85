from memr1.agents.generation import ScriptedGenerator
from memr1.agents.memory_manager import ManagerRequest, MemoryManager
from memr1.bank.operation import Operation
from tests.builders import NOON, entry


def request(*texts: str) -> ManagerRequest:
    memories = tuple(entry(str(20 + number), text) for number, text in enumerate(texts))
    facts = ("Ann: I moved to Rome.",)
    return ManagerRequest(scope="c1", speaker="Ann", time=NOON, turn_id="D1:2", facts=facts, memories=memories)


def test_each_request_gets_the_decision_about_its_own_memories() -> None:
    generator = ScriptedGenerator(
        [
            '{"operations":[{"op":"UPDATE","text":"Ann lives in Rome","id":1}]}',
            '{"operations":[{"op":"DELETE","id":2}]}',
        ]
    )
    first, second = MemoryManager(generator, "compact", 64).decide([request("Ann lives in Oslo"), request("a", "b")])
    assert first.operations == (Operation(kind="UPDATE", text="Ann lives in Rome", entry_id="20"),)
    assert second.operations == (Operation(kind="DELETE", entry_id="21"),)
    assert first.failure is None and second.completion == '{"operations":[{"op":"DELETE","id":2}]}'
    assert generator.prompts[0] == (
        'memories:\n{"text":"Ann lives in Oslo","id":1}\nturn:\nAnn: I moved to Rome.\noperations:'
    )


def test_an_unreadable_output_is_a_decision_to_do_nothing_that_keeps_the_text() -> None:
    decision = MemoryManager(ScriptedGenerator(lambda _: "I would add it"), "paper", 64).decide([request()])[0]
    assert (decision.operations, decision.failure, decision.reason) == ((), "I would add it", "no JSON object")


def test_no_requests_ask_no_model() -> None:
    generator = ScriptedGenerator([])
    assert MemoryManager(generator, "compact", 64).decide([]) == []


def test_a_manager_goes_by_the_name_of_its_model() -> None:
    assert MemoryManager(ScriptedGenerator([]), "compact", 64).name == "scripted"
