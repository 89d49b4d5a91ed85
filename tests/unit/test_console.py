"""Progress lines where there is no terminal, log files, tables."""

import logging
from pathlib import Path

import pytest

from memr1 import console


def test_progress_is_one_line_per_ten_percent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with console.show_progress("reading") as on_progress:
        for done in range(1, 101):
            on_progress(done, 100)
    assert len(caplog.messages) == 10
    assert caplog.messages[0].startswith("reading: 10 % (10 of 100, ")


def test_few_steps_give_one_line_each_with_the_note(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with console.show_progress("training") as on_progress:
        on_progress(1, 2, "reward 0.5")
        on_progress(2, 2, "reward 0.7")
    assert [line.rsplit(": ", 1)[1] for line in caplog.messages] == ["reward 0.5", "reward 0.7"]
    assert caplog.messages[0].startswith("training: 50 % (1 of 2, ")


def test_things_that_go_on_at_once_count_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with console.show_progress("evaluating") as on_progress:
        on_progress(5, 10, part="trained")
        on_progress(5, 10, part="warm_start")
        on_progress(5, 10, part="trained")
    assert [line.split(":")[0] for line in caplog.messages] == ["evaluating trained", "evaluating warm_start"]


def test_a_log_file_holds_what_any_library_says_and_tracebacks(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with console.write_log_file(path):
        logging.getLogger("memr1.anything").info("an own line")
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("some.library").exception("a library's line")
    logging.getLogger("memr1.anything").info("after the block")
    text = path.read_text()
    assert "INFO    memr1.anything: an own line" in text
    assert "ValueError: broken" in text
    assert "after the block" not in text


def test_a_table_is_aligned() -> None:
    assert console.render_table(["system", "f1"], [["trained", "0.9"], ["warm_start", "0.45"]]).splitlines() == [
        "system        f1",
        "trained      0.9",
        "warm_start  0.45",
    ]
