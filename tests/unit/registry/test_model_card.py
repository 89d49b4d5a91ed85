"""The model card: what anyone who finds the bundle must know."""

from memr1.config import RunConfig
from memr1.data.stored import DatasetIdentity
from memr1.evaluation.comparison import EvaluationReport, ScoredDataset
from memr1.evaluation.scores import BuildFigures, SystemScore
from memr1.registry.model_card import render_model_card

NOTICE = "LoCoMo is CC BY-NC 4.0: non-commercial use only."


def card(licence_notice: str = "", **config: object) -> str:
    identity = DatasetIdentity(
        name="locomo",
        sha256="ab" * 32,
        licence_notice=licence_notice,
        num_conversations=10,
        num_turns=5882,
        num_questions=1540,
    )
    build = BuildFigures(num_turns=1, num_manager_calls=1, num_manager_failures=0, operations={}, num_entries=1)
    score = SystemScore(
        num_questions=1307, f1=0.0123, bleu1=0.01, exact_match=0.002, by_category={}, evidence_recall=0.42,
        evidence_kept=0.5, num_answer_failures=3, build=build, seconds=9.0,
    )  # fmt: skip
    scored = ScoredDataset(
        name="locomo", sha256="ab" * 32, split="test", num_conversations=8, num_questions=1307, category_names={},
        licence_notice=licence_notice,
    )  # fmt: skip
    report = EvaluationReport(dataset=scored, systems={"trained": score}, differences=(), notes=("A tiny model.",))
    return render_model_card("memr1", RunConfig.model_validate(config), identity, report)


def test_the_licence_of_the_data_stands_before_everything_else() -> None:
    text = card(NOTICE)
    assert NOTICE in text
    assert text.index(NOTICE) < text.index("## Use")


def test_data_without_a_notice_gets_none() -> None:
    assert "Licence" not in card()


def test_the_card_tells_data_figures_and_training() -> None:
    text = card(training={"lora": {"rank": 8}, "memory_manager": {"num_steps": 12}})
    assert "5,882 turns" in text and "ab" * 32 in text
    assert "0.012" in text and "0.420" in text and "A tiny model." in text
    assert "GRPO, 12 steps, reward exact_match, LoRA of rank 8" in text
    assert 'load_model("models:/memr1@champion")' in text
    assert '{"conversation": [conversation_json]' in text


def test_the_card_tells_how_the_agents_were_trained_together() -> None:
    assert "GRPO, 3 rounds of 30 steps" in card(training={"policies": {"kind": "alternating", "num_rounds": 3}})
    assert "GRPO, 9 steps as one policy" in card(training={"policies": {"kind": "shared", "num_steps": 9}})
