"""Which directory a run writes to, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memr1.config import RunConfig
from memr1.errors import ConfigError
from memr1.run_dir import RunDir
from memr1.run_start import differing_options, names_hub_model, open_run, prepare_run, resolve_config, start_run

CONFIG = RunConfig(profile="mine")


def finish(run: RunDir) -> None:
    for stage in run.stages:
        run.done_file(stage).parent.mkdir(parents=True, exist_ok=True)
        run.write_done(stage, {}, 0.0)


def test_a_new_run_is_named_after_its_profile_and_keeps_its_configuration(tmp_path: Path) -> None:
    run = prepare_run(CONFIG, runs_folder=tmp_path / "runs")
    assert run.root.name.startswith("mine-20")
    assert RunConfig.model_validate_json(run.config.read_text()) == CONFIG


def test_an_unfinished_run_of_the_same_configuration_goes_on(tmp_path: Path) -> None:
    first = prepare_run(CONFIG, runs_folder=tmp_path)
    assert prepare_run(CONFIG, runs_folder=tmp_path) == first
    assert prepare_run(CONFIG.model_copy(update={"seed": 8}), runs_folder=tmp_path) != first


def test_a_finished_run_is_followed_by_a_new_one(tmp_path: Path) -> None:
    first = prepare_run(CONFIG, runs_folder=tmp_path)
    finish(first)
    assert prepare_run(CONFIG, runs_folder=tmp_path) != first


def test_a_run_that_is_being_worked_on_is_left_alone(tmp_path: Path) -> None:
    first = prepare_run(CONFIG, runs_folder=tmp_path)
    with open_run(first):
        assert prepare_run(CONFIG, runs_folder=tmp_path) != first


def test_a_run_whose_dataset_has_changed_does_not_go_on(tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text("old")
    config = resolve_config_for(data)
    run = prepare_run(config, runs_folder=tmp_path / "runs")
    identity = {"name": "mine", "sha256": "0" * 64, "licence_notice": ""}
    counts = {"num_conversations": 1, "num_turns": 1, "num_questions": 1}
    run.data.mkdir()
    run.dataset.write_text(json.dumps(identity | counts))
    assert prepare_run(config, runs_folder=tmp_path / "runs") != run
    with pytest.raises(ConfigError, match="another content"):
        prepare_run(config, run.root)


def resolve_config_for(data: Path) -> RunConfig:
    profile = data.with_name("profile.toml")
    profile.write_text('[data]\nkind = "transcript"\npath = "elsewhere"\n')
    return resolve_config(str(profile), dataset=str(data))


def test_the_dataset_is_a_short_way_to_set_the_data_path(tmp_path: Path) -> None:
    config = resolve_config_for(tmp_path / 'a "quoted" name.jsonl')
    assert config.data.kind == "transcript"
    assert config.data.path == tmp_path / 'a "quoted" name.jsonl'


def test_a_directory_of_another_configuration_is_refused_with_the_options_that_differ(tmp_path: Path) -> None:
    prepare_run(CONFIG, tmp_path / "run")
    other = CONFIG.model_copy(update={"seed": 8})
    with pytest.raises(ConfigError, match="seed: 8, there 7"):
        prepare_run(other, tmp_path / "run")


def test_a_directory_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        prepare_run(CONFIG, tmp_path)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/run"):
        prepare_run(CONFIG, tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        prepare_run(CONFIG, tmp_path / "run")


def test_a_run_directory_goes_on_with_its_own_options_only(tmp_path: Path) -> None:
    run = prepare_run(CONFIG, tmp_path / "run")
    assert start_run(str(run.root)) == run
    with pytest.raises(ConfigError, match="give no others"):
        start_run(str(run.root), ["seed=8"])


def test_two_processes_cannot_hold_one_run(tmp_path: Path) -> None:
    run = prepare_run(CONFIG, tmp_path / "run")
    script = (
        "import sys; from pathlib import Path; from memr1.run_dir import RunDir; from memr1.run_start import open_run\n"
        "with open_run(RunDir(Path(sys.argv[1]))): pass"
    )
    with open_run(run):
        other = subprocess.run([sys.executable, "-c", script, str(run.root)], capture_output=True, text=True)
    assert other.returncode != 0
    assert "another process is working on" in other.stderr


def test_every_attempt_has_its_own_log_and_latest_points_at_the_newest(tmp_path: Path) -> None:
    run = prepare_run(CONFIG, tmp_path / "run")
    for number in (1, 2):
        with open_run(run) as opened, open_run(run) as inner:
            assert opened.logs == run.logs / f"attempt_{number}"
            assert inner.logs.resolve() == opened.logs.resolve()
        assert (run.logs / "latest").resolve() == opened.logs.resolve()
    assert opened.log_file.is_file()


def test_the_environment_of_a_run_is_on_record(tmp_path: Path) -> None:
    run = prepare_run(CONFIG, tmp_path / "run")
    with open_run(run):
        pass
    environment = json.loads(run.environment.read_text())
    assert environment["seeds"] == {"run": 7}
    assert environment["num_cpus"] >= 1
    assert environment["libraries"]["memr1"]


def test_what_is_no_run_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"), open_run(RunDir(tmp_path)):
        pass


def test_a_local_folder_is_no_hub_model(tmp_path: Path) -> None:
    def config(model: str) -> RunConfig:
        tree = {"memory_manager": {"generator": {"kind": "transformers", "model": model}}}
        return RunConfig.model_validate(tree)

    assert not names_hub_model(config("tiny"))
    assert not names_hub_model(config(str(tmp_path)))
    assert names_hub_model(config("Qwen/Qwen2.5-3B-Instruct"))


def test_differences_name_both_values_and_options_of_one_side() -> None:
    other = RunConfig.model_validate({"profile": "mine", "bank": {"kind": "in_memory"}, "training": {"lora": {}}})
    assert differing_options(CONFIG, other) == [
        'bank.kind: "lancedb", there "in_memory"',
        "training.lora.rank: null, there 16",
        "training.lora.alpha: null, there 32",
    ]
