"""The report for people: `report.md`. Text in, text out."""

from collections.abc import Callable, Mapping, Sequence

from memr1.evaluation.comparison import EvaluationReport, PairwiseDifference
from memr1.evaluation.scores import Scores, SystemScore

METRIC_NAMES = {"exact_match": "exact match", "f1": "token F1"}
MEANINGS = {
    "Exact match": "share of answers equal to the gold after lowercasing and stripping.",
    "F1 and BLEU-1": """word overlap as Mem0's evaluation computes it, and Memory-R1's after it (F1 over sets of words,
        no stemming). Compare them only with figures from the same code.""",
    "LoCoMo F1": "LoCoMo's own score (stemmed, by category): another measure, never to be compared with F1.",
    "Evidence recall": """mean share of a question's evidence turns among the turns behind the memories retrieved for
        it; evidence kept: behind any entry of the bank. Their gap is what retrieval missed, the rest is what the Memory
        Manager did not keep.""",
    "Failures": "outputs that did not parse. They count as empty answers, and leave the bank as it was.",
    "Intervals": """95 %, from a paired bootstrap over whole conversations (over single questions when there are fewer
        than five conversations: then they are too narrow). P(>0) is the share of resamples in which the first system is
        better.""",
}


def render_markdown(report: EvaluationReport) -> str:
    """The whole report as Markdown."""
    parts = [
        f"# Evaluation on {report.dataset.name}",
        _describe_dataset(report),
        *(f"> {note}" for note in report.notes),
        "## Overall",
        markdown_table(*overall_table(report)),
        "## By category (exact match / F1)",
        markdown_table(*category_table(report)),
        "## Differences",
        markdown_table(*difference_table(report.differences)),
        "## What the Memory Managers did",
        markdown_table(*build_table(report)),
        "## What the figures mean",
        "\n".join(f"- **{name}**: {text}" for name, text in meanings(report).items()),
    ]
    if report.dataset.licence_notice:
        parts += ["## Licence of the data", report.dataset.licence_notice]
    return "\n\n".join(parts) + "\n"


def describe_questions(report: EvaluationReport) -> str:
    """One sentence on what was asked."""
    data = report.dataset
    whose = f"{data.num_conversations:,} held-out conversations"
    return f"{data.num_questions:,} questions about {whose} (split: {data.split})."


def meanings(report: EvaluationReport) -> dict[str, str]:
    """What the figures of this report mean, by their names."""
    of_locomo = any(score.locomo_f1 is not None for score in report.systems.values())
    return {name: " ".join(text.split()) for name, text in MEANINGS.items() if of_locomo or name != "LoCoMo F1"}


def overall_table(report: EvaluationReport) -> tuple[list[str], list[list[str]]]:
    """Header and one row per system."""
    columns: dict[str, Callable[[SystemScore], str]] = {
        "questions": lambda score: f"{score.num_questions:,}",
        "exact match": lambda score: figure(score.exact_match),
        "F1": lambda score: figure(score.f1),
        "BLEU-1": lambda score: figure(score.bleu1),
        "LoCoMo F1": lambda score: figure(score.locomo_f1),
        "evidence recall": lambda score: figure(score.evidence_recall),
        "evidence kept": lambda score: figure(score.evidence_kept),
        "failures": lambda score: f"{score.num_answer_failures:,}",
        "seconds": lambda score: f"{score.seconds:,.0f}",
    }
    if all(score.locomo_f1 is None for score in report.systems.values()):
        del columns["LoCoMo F1"]
    rows = [
        [_label(report, name), *(column(score) for column in columns.values())]
        for name, score in report.systems.items()
    ]
    return ["system", *columns], rows


def category_table(report: EvaluationReport) -> tuple[list[str], list[list[str]]]:
    """Header and one row per category: its integer, its name where the dataset has one, its size, each system."""
    categories = sorted({key for score in report.systems.values() for key in score.by_category}, key=int)
    rows = []
    for key in categories:
        scores = [score.by_category.get(key) for score in report.systems.values()]
        num_questions = max(score.num_questions for score in scores if score is not None)
        name = report.dataset.category_names.get(key, "")
        rows.append([key, name, f"{num_questions:,}", *(_both(score) for score in scores)])
    return ["category", "name", "questions", *report.systems], rows


def difference_table(differences: Sequence[PairwiseDifference]) -> tuple[list[str], list[list[str]]]:
    """Header and one row per pair of systems and metric."""
    rows = [
        [
            METRIC_NAMES[item.metric],
            f"{item.a} − {item.b}",
            signed(item.difference),
            f"{signed(item.low)} … {signed(item.high)}",
            f"{item.probability:.3f}",
            f"{item.num_units:,} {item.unit}s",
        ]
        for item in differences
    ]
    return ["metric", "systems", "difference", "95 % interval", "P(>0)", "resampled"], rows


def build_table(report: EvaluationReport) -> tuple[list[str], list[list[str]]]:
    """Header and one row per system: what its Memory Manager read and did."""
    header = ["system", "turns", "calls", "failures", "ADD", "UPDATE", "DELETE", "NOOP", "entries"]
    return header, [[name, *_build_row(score)] for name, score in report.systems.items()]


def figure(value: float | None) -> str:
    """A score for a table."""
    return "–" if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference for a table."""
    return f"{value:+.3f}".replace("-", "−")


def _build_row(score: SystemScore) -> list[str]:
    build = score.build
    operations: Mapping[str, int] = build.operations
    counts = [build.num_turns, build.num_manager_calls, build.num_manager_failures]
    counts += [operations.get(kind, 0) for kind in ("ADD", "UPDATE", "DELETE", "NOOP")]
    return [f"{count:,}" for count in (*counts, build.num_entries)]


def _describe_dataset(report: EvaluationReport) -> str:
    return f"{describe_questions(report)}\nDataset SHA-256: `{report.dataset.sha256}`"


def _label(report: EvaluationReport, name: str) -> str:
    if name == "champion" and report.champion is not None:
        return f"champion ({report.champion.model_name} version {report.champion.version})"
    return name


def _both(score: Scores | None) -> str:
    return "–" if score is None else f"{figure(score.exact_match)} / {figure(score.f1)}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
