"""Prompts that are too long are left out whole, counted and listed."""

import logging
from pathlib import Path

import pytest

from memr1.errors import TrainingError
from memr1.records import read_jsonl
from memr1.rl.lengths import TooLong, leave_out_long_prompts, list_left_out

EXAMPLES = [{"id": "a", "prompt": "one two three"}, {"id": "b", "prompt": "one"}, {"id": "c", "prompt": "one two"}]


def count_words(text: str) -> int:
    return len(text.split())


def test_a_prompt_of_the_limit_is_kept_and_one_above_it_is_not() -> None:
    kept, left_out = leave_out_long_prompts(EXAMPLES, count_words, 2)
    assert [item["id"] for item in kept] == ["b", "c"]
    assert left_out == [TooLong(id="a", num_tokens=3)]


def test_without_a_limit_nothing_is_even_counted() -> None:
    def never(_: str) -> int:
        raise AssertionError

    assert leave_out_long_prompts(EXAMPLES, never, None) == (EXAMPLES, [])


def test_leaving_out_everything_is_an_error_that_says_how_long_the_shortest_is() -> None:
    with pytest.raises(TrainingError, match=r"max_prompt_tokens = 0 \(the shortest has 1 tokens\)"):
        leave_out_long_prompts(EXAMPLES, count_words, 0)


def test_what_was_left_out_is_listed_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        list_left_out([TooLong(id="a", num_tokens=3)], 3, tmp_path)
    assert "1 of 3 examples left out" in caplog.text
    assert list(read_jsonl(tmp_path / "too_long.jsonl", TooLong)) == [TooLong(id="a", num_tokens=3)]
    list_left_out([], 3, tmp_path / "none")
    assert not (tmp_path / "none").exists()
