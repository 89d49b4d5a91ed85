"""The model card of a registered pair: README.md in its bundle. Text in, text out."""

from memr1.config import AGENTS, AgentConfig, AgentName, RunConfig
from memr1.data.stored import DatasetIdentity
from memr1.evaluation.comparison import EvaluationReport
from memr1.evaluation.rendering import category_table, describe_questions, markdown_table, overall_table
from memr1.training_options import PoliciesConfig, TrainingConfig

USE = """Given a conversation (JSON) and a question, the Memory Manager reads the conversation turn by turn and keeps a
memory bank; the Answer Agent picks memories and answers.

```python
import mlflow, pandas as pd

pair = mlflow.pyfunc.load_model("models:/{model_name}@champion")
pair.predict(pd.DataFrame({{"conversation": [conversation_json], "question": ["Where does Marta live?"]}}))
```"""


def render_model_card(model_name: str, config: RunConfig, dataset: DatasetIdentity, report: EvaluationReport) -> str:
    """The card as Markdown. The licence notice of the training data stands first: it binds whoever uses the pair."""
    notice = [f"> **Licence of the training data.** {dataset.licence_notice}"] if dataset.licence_notice else []
    parts = [
        f"# {model_name}: a Memory Manager and an Answer Agent, trained together",
        *notice,
        "Made by memr1. The two agents, their prompts, the embedding model and the retrieval settings belong together: "
        "the figures below hold for the whole, not for a part of it.",
        "## Use",
        USE.format(model_name=model_name),
        "## Agents",
        markdown_table(["agent", "starts from", "prompt", "longest output", "training"], _agent_rows(config)),
        f"Retrieval: {config.retrieval.entries_per_turn} entries per turn, {config.retrieval.entries_per_speaker} per "
        f"speaker and question. Facts: {config.extraction.kind}. Seed {config.seed}.",
        "## Trained on",
        f"`{dataset.name}`: {dataset.num_conversations:,} conversations, {dataset.num_turns:,} turns, "
        f"{dataset.num_questions:,} questions before splitting. SHA-256 `{dataset.sha256}`.",
        "## Figures",
        describe_questions(report),
        *(f"> {note}" for note in report.notes),
        markdown_table(*overall_table(report)),
        markdown_table(*category_table(report)),
        "## Limits",
        "It can be wrong, and a wrong memory stays until a later turn corrects it. The figures say how it does on "
        "conversations like those above and nothing about others: measure it on your own with `memr1 evaluate --data`.",
    ]
    return "\n\n".join(parts) + "\n"


def _agent_rows(config: RunConfig) -> list[list[str]]:
    return [_agent_row(name, config) for name in AGENTS]


def _agent_row(name: AgentName, config: RunConfig) -> list[str]:
    agent, num_steps = config.agent(name), config.agent_training(name).num_steps
    return [name, _model(agent), agent.prompt, f"{agent.max_new_tokens} tokens", _training(config.training, num_steps)]


def _model(agent: AgentConfig) -> str:
    generator = agent.generator
    return generator.model if generator.kind != "scripted" else "scripted"


def _training(training: TrainingConfig, num_steps: int) -> str:
    weights = "all weights" if training.lora is None else f"LoRA of rank {training.lora.rank}"
    steps = _steps(training.policies, num_steps)
    return f"{training.algorithm.upper()}, {steps}, reward {training.reward}, {weights}"


def _steps(policies: PoliciesConfig, num_steps: int) -> str:
    if policies.kind == "alternating":
        return f"{policies.num_rounds} rounds of {num_steps} steps"
    return (
        f"{num_steps} steps as one policy with the other agent" if policies.kind == "shared" else f"{num_steps} steps"
    )
