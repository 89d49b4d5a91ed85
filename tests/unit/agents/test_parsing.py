import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memr1.agents.parsing import Answer, ParseFailure, parse_answer, parse_operations
from memr1.bank.operation import Operation
from tests.builders import entry

SHOWN = [entry("11", "Marta lives in Lisbon"), entry("12", "Marta drives a Fiat"), entry("15", "Marta has a cat")]
WORDS = st.lists(st.text("abcXYZ0123é“\\\"'{}:,😀", min_size=1, max_size=8), min_size=1, max_size=6).map(" ".join)


def op(kind: str, text: str = "", entry_id: str = "") -> Operation:
    return Operation(kind=kind, text=text, entry_id=entry_id)  # type: ignore[arg-type]


def failed(parsed: object) -> str:
    assert isinstance(parsed, ParseFailure)
    return parsed.reason


def answer(parsed: Answer | ParseFailure) -> Answer:
    assert isinstance(parsed, Answer)
    return parsed


def test_the_compact_form_maps_shown_numbers_back_to_entry_ids() -> None:
    text = (
        '{"operations":[{"about":"Marta lives in","seen":"Lisbon","op":"UPDATE",'
        '"text":"Marta lives in Rome, earlier Lisbon","id":1},{"op":"ADD","text":"Marta plays the flute"},'
        '{"about":"Marta has a","seen":"cat","op":"DELETE","id":"3"}]}'
    )
    assert parse_operations(text, SHOWN) == (
        op("UPDATE", "Marta lives in Rome, earlier Lisbon", "11"),
        op("ADD", "Marta plays the flute"),
        op("DELETE", entry_id="15"),
    )


def test_the_published_form_lists_untouched_memories_as_none() -> None:
    text = """```json
    {"memory": [
        {"id": "1", "text": "Marta lives in Rome", "event": "UPDATE", "old_memory": "Marta lives in Lisbon"},
        {"id": "2", "text": "Marta drives a Fiat", "event": "NONE"},
        {"id": "4", "text": "Marta plays the flute", "event": "ADD"}
    ]}
    ```"""
    assert parse_operations(text, SHOWN) == (
        op("UPDATE", "Marta lives in Rome", "11"),
        op("ADD", "Marta plays the flute"),
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"operations":[]}',
        '{"operations":[{"about":"Marta lives in","seen":"Lisbon","op":"NOOP"}]}',
        '{"memory":[{"id":"1","text":"Marta lives in Lisbon","event":"NONE"},{"id":"2","text":"","event":"NOOP"}]}',
    ],
)
def test_nothing_to_do_is_one_noop_however_it_is_said(text: str) -> None:
    assert parse_operations(text, SHOWN) == (op("NOOP"),)


def test_reasoning_fences_and_prose_around_the_json_are_skipped() -> None:
    text = '<think>{"operations":[{"op":"DELETE","id":1}]}?</think>Sure:\n```\n{"operations":[]}\n```\nDone.'
    assert parse_operations(text, SHOWN) == (op("NOOP"),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object"),
        ("I will add that.", "no JSON object"),
        ('{"operations":[{"op":"ADD","text":"Mar', "broken JSON"),
        ('{"answer":"Rome"}', "no 'operations' or 'memory'"),
        ('{"operations":{"op":"ADD"}}', "not a list"),
        ('{"operations":["ADD"]}', "not an object"),
        ('{"operations":[{"op":"MERGE","text":"x"}]}', "'MERGE'"),
        ('{"operations":[{"text":"x"}]}', "'None'"),
        ('{"operations":[{"op":"ADD","text":"  "}]}', "ADD without text"),
        ('{"operations":[{"op":"UPDATE","id":1}]}', "expected a text"),
        ('{"operations":[{"op":"UPDATE","id":4,"text":"x"}]}', "number 4"),
        ('{"operations":[{"op":"DELETE","id":0}]}', "number 0"),
        ('{"operations":[{"op":"DELETE","id":true}]}', "number"),
        ('{"operations":[{"op":"DELETE","id":-1}]}', "number"),
        ('{"operations":[{"op":"DELETE","id":"²"}]}', "number"),
        ('{"operations":[{"op":"DELETE"}]}', "number"),
        ('{"operations":[{"op":"DELETE","id":1},{"op":"UPDATE","id":1,"text":"x"}]}', "deleted just before"),
        ('{"operations":[{"op":"ADD","text":"\\ud83d"}]}', "surrogate"),
        ("{" + '"a":{' * 100_000, "broken JSON"),
        ('{"operations":[{"op":"DELETE","id":' + "9" * 5_000 + "}]}", "broken JSON"),
    ],
)
def test_an_output_that_cannot_be_read_is_a_failure_with_its_reason(text: str, reason: str) -> None:
    parsed = parse_operations(text, SHOWN)
    assert reason in failed(parsed)
    assert isinstance(parsed, ParseFailure) and parsed.text == text


def test_one_unreadable_operation_spoils_the_whole_output() -> None:
    assert isinstance(
        parse_operations('{"operations":[{"op":"ADD","text":"x"},{"op":"DELETE","id":9}]}', SHOWN), ParseFailure
    )


def test_a_line_break_inside_a_text_becomes_a_space_because_an_entry_is_one_line() -> None:
    assert parse_operations('{"operations":[{"op":"ADD","text":"Marta\nlives  in Rome\\n"}]}', SHOWN) == (
        op("ADD", "Marta lives in Rome"),
    )


def test_the_compact_answer_names_the_memories_it_was_distilled_from() -> None:
    parsed = answer(
        parse_answer('{"about":"Marta has a","memories":[{"text":"Marta has a cat","id":3}],"answer":"cat"}', SHOWN)
    )
    assert (parsed.text, parsed.memory_ids, parsed.failure) == ("cat", ("15",), None)


def test_an_answer_may_name_no_memory_or_one_that_was_not_shown() -> None:
    assert answer(parse_answer('{"about":"x","memories":[],"answer":"none"}', SHOWN)).memory_ids == ()
    assert answer(parse_answer('{"memories":[{"id":7},{"id":2},{"id":2},5],"answer":3}', SHOWN)) == Answer(
        text="3", memory_ids=("12",), completion='{"memories":[{"id":7},{"id":2},{"id":2},5],"answer":3}'
    )
    assert answer(parse_answer('{"memories":[{"id":1}],"answer":"x"}', [])).memory_ids == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Selected:\n1. 01 May 2024: Marta has a cat\n\n**Answer:** a cat", "a cat"),
        ("**Answer: a cat**", "a cat"),
        ("Answer: a cat", "a cat"),
        ("## Final answer:\na cat", "a cat"),
        ("Answer: a dog? No.\n**Answer:** a cat\nThat is all.", "a cat"),
        ("The memories say so. **Answer:** a cat", "a cat"),
        ("<answer> a cat </answer>", "a cat"),
        ("<think>**Answer:** a dog</think>**Answer:** a cat", "a cat"),
    ],
)
def test_the_published_answer_forms_are_read(text: str, expected: str) -> None:
    assert answer(parse_answer(text, SHOWN)).text == expected


def test_a_memory_repeated_before_the_published_answer_counts_as_distilled() -> None:
    text = "**Memories:**\n- 01 May 2024: marta has a  cat\n- 2. nothing else\n**Answer:** cat"
    assert answer(parse_answer(text, SHOWN)).memory_ids == ("15",)


@pytest.mark.parametrize(
    "text", ["", "Rome", "**Answer:**", '{"memories":[]}', '{"answer":null}', '{"answer":["Rome"]}', '{"answer":"Rome']
)
def test_an_output_without_a_marked_answer_is_a_failure(text: str) -> None:
    parsed = parse_answer(text, SHOWN)
    assert isinstance(parsed, ParseFailure) and parsed.text == text


@given(st.text() | st.text('{}[]":,\\ \nopADDidtext*Answer:<>/think0123', max_size=200))
def test_parsing_never_raises(text: str) -> None:
    assert isinstance(parse_operations(text, SHOWN), tuple | ParseFailure)
    assert isinstance(parse_answer(text, SHOWN), Answer | ParseFailure)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["operations", "memory", "op", "id", "text", "answer", "memories"]), inner
            )
        ),
        max_leaves=12,
    ).map(json.dumps)
)
def test_parsing_never_raises_on_json_of_any_shape(text: str) -> None:
    parse_operations(text, SHOWN)
    parse_answer(text, SHOWN)


OPERATIONS = st.one_of(
    st.builds(lambda text: op("ADD", text), WORDS),
    st.builds(lambda text, held: op("UPDATE", text, held.id), WORDS, st.sampled_from(SHOWN)),
)


@given(st.lists(OPERATIONS, max_size=5), st.sets(st.sampled_from(["11", "12", "15"])))
def test_rendered_operations_are_read_back(changes: list[Operation], removed: set[str]) -> None:
    operations = (*changes, *(op("DELETE", entry_id=entry_id) for entry_id in sorted(removed)))
    number = {held.id: place for place, held in enumerate(SHOWN, 1)}
    compact = [{"op": item.kind, "text": item.text, "id": number.get(item.entry_id)} for item in operations]
    published = [{"event": item.kind, "text": item.text, "id": str(number.get(item.entry_id))} for item in operations]
    expected = operations or (op("NOOP"),)
    assert parse_operations(json.dumps({"operations": compact}), SHOWN) == expected
    assert parse_operations(f"```json\n{json.dumps({'memory': published}, ensure_ascii=False)}\n```", SHOWN) == expected


@given(WORDS)
def test_rendered_answers_are_read_back(text: str) -> None:
    assert answer(parse_answer(json.dumps({"memories": [], "answer": text}), SHOWN)).text == text
