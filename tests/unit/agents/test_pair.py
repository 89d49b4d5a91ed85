import json
import shutil
from pathlib import Path

import pytest

from memr1.agents.answer_agent import AnswerRequest
from memr1.agents.memory_manager import ManagerRequest
from memr1.agents.pair import AgentPair, build_pair, load_pair, pair_settings, read_settings, write_pair
from memr1.config import AgentConfig, AnswerAgentConfig, RunConfig
from memr1.data.stored import DatasetIdentity
from memr1.errors import AgentError, CheckpointMissing
from memr1.model_options import ScriptedModel, TransformersModel
from tests.builders import NOON, entry, write_random_model

DATASET = DatasetIdentity(
    name="test", sha256="0" * 64, licence_notice="", num_conversations=1, num_turns=2, num_questions=3
)
MEMORIES = (entry("1", "Ann lives in Rome"),)


def scripted(manager: str, answer: str) -> RunConfig:
    return RunConfig(
        memory_manager=AgentConfig(generator=ScriptedModel(kind="scripted", reply=manager)),
        answer_agent=AnswerAgentConfig(generator=ScriptedModel(kind="scripted", reply=answer)),
    )


def of_models(folder: Path) -> RunConfig:
    model = TransformersModel(model=str(folder))
    return RunConfig(
        memory_manager=AgentConfig(generator=model, max_new_tokens=12),
        answer_agent=AnswerAgentConfig(generator=model, max_new_tokens=12),
    )


def outputs(pair: AgentPair) -> tuple[str, str]:
    request = ManagerRequest(scope="c1", speaker="Ann", time=NOON, turn_id="t", facts=("Ann: hi",), memories=MEMORIES)
    asked = AnswerRequest(question_id="q", question="Where?", memories=MEMORIES)
    return pair.manager.decide([request])[0].completion, pair.answer_agent.answer([asked])[0].completion


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    names = ("base", "memory_manager", "answer_agent")
    return {name: write_random_model(root / name, seed=seed) for seed, name in enumerate(names)}


def test_a_pair_that_was_written_answers_as_the_one_it_was_made_from(models: dict[str, Path], tmp_path: Path) -> None:
    trained = {name: models[name] for name in ("memory_manager", "answer_agent")}
    config = of_models(models["base"])
    built = outputs(build_pair(config, trained))  # type: ignore[arg-type]
    assert built != outputs(build_pair(config, {}))
    write_pair(tmp_path / "pair", pair_settings(config, DATASET), trained)  # type: ignore[arg-type]
    shutil.move(tmp_path / "pair", tmp_path / "elsewhere")
    pair = load_pair(tmp_path / "elsewhere")
    assert outputs(pair) == built
    assert pair.settings == pair_settings(config, DATASET) and pair.settings.dataset == DATASET


def test_a_loaded_pair_uses_the_prompts_it_was_trained_with(tmp_path: Path) -> None:
    config = scripted('{"operations":[]}', '{"answer":"x"}')
    write_pair(tmp_path / "pair", pair_settings(config), {})
    prompt = tmp_path / "pair" / "prompts" / "compact_answer_agent.txt"
    prompt.write_text("an older wording: {question}\n", encoding="utf-8")
    pair = load_pair(tmp_path / "pair")
    outputs(pair)
    assert pair.answer_agent._generator.prompts == ["an older wording: Where?"]  # type: ignore[attr-defined]


def test_writing_a_pair_again_replaces_it_whole(models: dict[str, Path], tmp_path: Path) -> None:
    config, folder = of_models(models["base"]), tmp_path / "pair"
    write_pair(folder, pair_settings(config), {"memory_manager": models["base"], "answer_agent": models["base"]})
    (folder / "left behind").touch()
    write_pair(folder, pair_settings(config), {"memory_manager": models["base"], "answer_agent": models["base"]})
    assert sorted(path.name for path in folder.iterdir()) == ["answer_agent", "memory_manager", "pair.json", "prompts"]


def test_the_adapter_of_a_local_model_is_merged_so_that_the_folder_is_whole(
    models: dict[str, Path], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    base = shutil.copytree(models["base"], tmp_path / "base")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(tmp_path / "adapter")
    trained = {"memory_manager": tmp_path / "adapter", "answer_agent": models["answer_agent"]}
    config = of_models(base)
    built = outputs(build_pair(config, trained))  # type: ignore[arg-type]
    write_pair(tmp_path / "pair", pair_settings(config), trained)  # type: ignore[arg-type]
    shutil.rmtree(base)
    assert outputs(load_pair(tmp_path / "pair")) == built
    assert not (tmp_path / "pair" / "memory_manager" / "adapter_config.json").exists()


def test_missing_weights_are_named_when_a_pair_is_written_or_loaded(models: dict[str, Path], tmp_path: Path) -> None:
    config, folder = of_models(models["base"]), tmp_path / "pair"
    with pytest.raises(CheckpointMissing, match=r"no weights of the answer_agent .*nowhere"):
        write_pair(folder, pair_settings(config), {"answer_agent": tmp_path / "nowhere"})
    assert not folder.exists()
    write_pair(folder, pair_settings(config), {"memory_manager": models["base"]})
    with pytest.raises(CheckpointMissing, match="lacks the weights of the answer_agent"):
        load_pair(folder)


@pytest.mark.parametrize("damage", ["missing", "not JSON", "unknown key"])
def test_a_folder_that_is_no_pair_is_an_error(tmp_path: Path, damage: str) -> None:
    if damage != "missing":
        (tmp_path / "pair.json").write_text("{" if damage == "not JSON" else '{"surprise": 1}')
    with pytest.raises(AgentError, match=r"pair\.json"):
        read_settings(tmp_path)


def test_a_pair_of_another_embedding_model_is_refused(tmp_path: Path) -> None:
    config = scripted("", "")
    settings = pair_settings(config).model_copy(update={"embedder": "other"})
    write_pair(tmp_path / "pair", settings, {})
    with pytest.raises(AgentError, match="embeddings of 'other'"):
        load_pair(tmp_path / "pair")


def test_weights_that_play_both_roles_are_stored_and_loaded_once(models: dict[str, Path], tmp_path: Path) -> None:
    config = of_models(models["base"])
    config = RunConfig.model_validate({**config.model_dump(), "training": {"policies": {"kind": "shared"}}})
    trained = {"memory_manager": models["answer_agent"], "answer_agent": models["answer_agent"]}
    built = outputs(build_pair(config, trained))  # type: ignore[arg-type]
    write_pair(tmp_path / "pair", pair_settings(config), trained)  # type: ignore[arg-type]
    assert [path.parent.name for path in (tmp_path / "pair").rglob("*.safetensors")] == ["shared"]
    pair = load_pair(tmp_path / "pair")
    assert outputs(pair) == built
    assert pair.manager._generator is pair.answer_agent._generator  # type: ignore[attr-defined]


def test_a_pair_written_before_weights_could_be_shared_is_still_read(models: dict[str, Path], tmp_path: Path) -> None:
    config = of_models(models["base"])
    write_pair(
        tmp_path / "pair", pair_settings(config), {name: models[name] for name in ("memory_manager", "answer_agent")}
    )  # type: ignore[arg-type]
    path = tmp_path / "pair" / "pair.json"
    settings = json.loads(path.read_text())
    del settings["shares_weights"]
    path.write_text(json.dumps(settings))
    assert not read_settings(tmp_path / "pair").shares_weights
    assert outputs(load_pair(tmp_path / "pair"))
