from pathlib import Path

import pytest

from memr1.rl.launch import explain_failure, log_sizes

EARLIER = "ValueError: what the attempt before this one died of\n"
TORCHRUN = """E1121 12:00:00 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: 1) local_rank: 0
Traceback (most recent call last):
  File "torch/distributed/run.py", line 990, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("[rank0]: Traceback\n[rank0]: KeyError: 'q7'\n", "KeyError: 'q7'"),
        ("OSError: no space left\n[rank1]: RuntimeError: Connection closed by peer [::1]\n", "OSError: no space left"),
        ("a.b.Broken: x\nmemr1-error: row 3 has no answer\nKeyError: later\n", "row 3 has no answer"),
        ("  traceback : Signal 9 (SIGKILL) received by PID 7\n", "Signal 9 (SIGKILL) received by PID 7"),
        ("a line that mentions an Error\n", "exit code 1"),
    ],
)
def test_a_failure_is_told_by_what_a_rank_died_of(told: str, reason: str, tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(EARLIER)
    before = log_sizes(log)
    log.write_text(EARLIER + told + TORCHRUN)
    expected = f"training answer_agent failed: {reason}\nThe whole log: {log}"
    assert explain_failure("answer_agent", "exit code 1", log, before) == expected


def test_the_logs_of_other_machines_are_read_too(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(TORCHRUN)
    (tmp_path / "train.gpu2.log").write_text("memr1-error: no GPU here\n")
    assert "failed: no GPU here\n" in explain_failure("answer_agent", "exit code 1", log, {})
