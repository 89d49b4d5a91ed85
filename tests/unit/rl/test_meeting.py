"""Machines that train together notice when one of them is gone, and do not join what is over."""

import threading
import time
from pathlib import Path

import pytest

from memr1.errors import ConfigError
from memr1.records import write_json
from memr1.rl.meeting import Gathering, Meeting, NodeReport, Pulse, find_hosts
from memr1.rl.node import await_meeting, join_training
from memr1.run_dir import RunDir

MEETING = Meeting(id="m", endpoint="127.0.0.1:1", log="logs/train.log")


def gathering(folder: Path, report: NodeReport) -> Gathering:
    write_json(folder / f"node-{report.name}.json", report.model_dump())
    return Gathering(folder, MEETING, {})


def test_a_number_that_stands_still_is_lost_and_one_that_moves_is_not() -> None:
    pulse = Pulse(limit_seconds=0.2)
    for beat in range(4):
        assert not pulse.is_lost(beat)
        time.sleep(0.1)
    time.sleep(0.2)
    assert pulse.is_lost(3)


def test_a_machine_whose_ranks_failed_is_a_fault_and_is_named(tmp_path: Path) -> None:
    report = NodeReport(meeting="m", name="gpu2-17", returncode=1)
    assert gathering(tmp_path, report).find_fault() == "the ranks on gpu2-17 ended with code 1"


@pytest.mark.parametrize(
    "report",
    [
        NodeReport(meeting="m", name="gpu2-17", beat=3),
        NodeReport(meeting="m", name="gpu2-17", returncode=0),
        NodeReport(meeting="an earlier one", name="gpu2-17", returncode=1),
    ],
    ids=["at work", "done", "of an earlier meeting"],
)
def test_a_machine_at_work_or_done_is_no_fault(tmp_path: Path, report: NodeReport) -> None:
    assert gathering(tmp_path, report).find_fault() is None


def test_a_meeting_left_behind_is_not_joined_until_somebody_keeps_it_up(tmp_path: Path) -> None:
    write_json(tmp_path / "meeting.json", MEETING.model_dump())
    joined: list[Meeting] = []
    waiting = threading.Thread(target=lambda: joined.append(await_meeting(tmp_path)), daemon=True)
    waiting.start()
    waiting.join(3.5)
    assert not joined
    write_json(tmp_path / "meeting.json", {**MEETING.model_dump(), "beat": 1})
    waiting.join(10)
    assert joined and joined[0].beat == 1


def test_a_machine_that_does_not_see_the_run_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sees no .*config\.json.*file system that every machine"):
        join_training(RunDir(tmp_path), "memory_manager")


def test_as_many_hosts_are_named_as_other_machines_are_needed() -> None:
    assert find_hosts(3, {"MEMR1_HOSTS": ""}) == []
    with pytest.raises(ConfigError, match=r"names 1 host\(s\) \(gpu2\), but training\.num_nodes = 3 needs 2"):
        find_hosts(3, {"MEMR1_HOSTS": "gpu2"})
