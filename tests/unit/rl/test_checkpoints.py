import json
from pathlib import Path

from memr1.rl.checkpoints import forget_steps_after, newest_whole_checkpoint, read_metrics, seal_checkpoint


def test_training_resumes_from_the_newest_checkpoint_that_is_whole(tmp_path: Path) -> None:
    assert newest_whole_checkpoint(tmp_path) is None
    for step in (5, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    seal_checkpoint(tmp_path / "checkpoint-5", 5)
    seal_checkpoint(tmp_path / "checkpoint-10", 10)
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_a_line_still_being_written_is_not_read(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1}\n{"step": 2')
    assert read_metrics(metrics) == [{"step": 1}]
    assert read_metrics(tmp_path / "missing.jsonl") == []


def test_steps_after_the_checkpoint_are_forgotten_because_they_are_taken_again(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps({"step": step, "reward": 0.5}) + "\n" for step in range(1, 8)) + '{"st')
    forget_steps_after(metrics, 5)
    assert [line["step"] for line in read_metrics(metrics)] == [1, 2, 3, 4, 5]
