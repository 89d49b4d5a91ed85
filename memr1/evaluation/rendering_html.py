"""The report for people: `report.html`, one file with its style and bars inside, so that it opens without a network."""

from collections.abc import Mapping, Sequence
from html import escape

from memr1.evaluation.comparison import EvaluationReport, PairwiseDifference
from memr1.evaluation.rendering import (
    METRIC_NAMES,
    build_table,
    category_table,
    describe_questions,
    difference_table,
    figure,
    meanings,
    overall_table,
    signed,
)
from memr1.evaluation.scores import ScoredAnswer

MAX_QUESTIONS_SHOWN = 100  # evenly spaced over the whole set
BAR_WIDTH, BAR_HEIGHT, LABEL_WIDTH, VALUE_WIDTH = 420, 22, 170, 70  # pixels
STYLE = """
:root { --ink:#1d2430; --soft:#667085; --line:#d9dee7; --back:#fff; --bar:#3b6fd4; --good:#1a7f4b; --bad:#b3392f }
@media (prefers-color-scheme: dark) { :root {
  --ink:#e6e9ef; --soft:#98a2b3; --line:#343b48; --back:#14181f; --bar:#6f9bf0; --good:#4cc38a; --bad:#f0796f } }
body { font:16px/1.5 system-ui,sans-serif; color:var(--ink); background:var(--back); margin:2rem auto; max-width:64rem;
  padding:0 1rem }
table { border-collapse:collapse; margin:.5rem 0 1.5rem; font-variant-numeric:tabular-nums }
th,td { border-bottom:1px solid var(--line); padding:.3rem .7rem; text-align:left; vertical-align:top }
.scroll { overflow-x:auto } .note { border-left:3px solid var(--bar); padding-left:1rem } .soft { color:var(--soft) }
.right { color:var(--good) } .wrong { color:var(--bad) }
svg text { fill:var(--ink); font:13px system-ui,sans-serif } svg .bar { fill:var(--bar) }
svg .axis { stroke:var(--line) } svg .range { stroke:var(--bar); stroke-width:3 }
"""


def render_html(report: EvaluationReport, answers: Mapping[str, Sequence[ScoredAnswer]]) -> str:
    """The whole report as one HTML document."""
    title = f"Evaluation on {report.dataset.name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(describe_questions(report))}</p><p class=soft>SHA-256 {escape(report.dataset.sha256)}</p>",
        *(f"<p class=note>{escape(note)}</p>" for note in report.notes),
        "<h2>Overall</h2>",
        _table(*overall_table(report)),
        *_bars(report),
        "<h2>By category <span class=soft>(exact match / F1)</span></h2>",
        _table(*category_table(report)),
        "<h2>Differences</h2>",
        _intervals(report.differences),
        _table(*difference_table(report.differences)),
        "<h2>What the Memory Managers did</h2>",
        _table(*build_table(report)),
        "<h2>Answers</h2>",
        _answers(answers),
        "<h2>What the figures mean</h2>",
        "<ul>" + "".join(_meaning(*item) for item in meanings(report).items()) + "</ul>",
    ]
    if report.dataset.licence_notice:
        body += ["<h2>Licence of the data</h2>", f"<p>{escape(report.dataset.licence_notice)}</p>"]
    head = f"<meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    return f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"


def _meaning(name: str, text: str) -> str:
    return f"<li><b>{escape(name)}</b>: {escape(text)}</li>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return (
        f"<div class=scroll><table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"
    )


def _bars(report: EvaluationReport) -> list[str]:
    """One chart per metric: a bar per system on the scale from 0 to 1."""
    charts = []
    for metric, name in METRIC_NAMES.items():
        values = {system: float(getattr(score, metric)) for system, score in report.systems.items()}
        bars = [_bar(number, system, value) for number, (system, value) in enumerate(values.items())]
        charts.append(f"<h3>{name[0].upper() + name[1:]}</h3>" + _drawing(f"{name} by system", len(bars), bars))
    return charts


def _bar(number: int, label: str, value: float) -> str:
    y, width = number * BAR_HEIGHT, round(value * BAR_WIDTH, 1)
    return (
        f'<text x="0" y="{y + 16}">{escape(label)}</text>'
        f'<rect class=bar x="{LABEL_WIDTH}" y="{y + 3}" width="{width}" height="{BAR_HEIGHT - 6}" rx="2"/>'
        f'<text x="{LABEL_WIDTH + width + 6}" y="{y + 16}">{figure(value)}</text>'
    )


def _intervals(differences: Sequence[PairwiseDifference]) -> str:
    """Every difference in exact match as a point on its interval; the upright line is no difference."""
    shown = [item for item in differences if item.metric == "exact_match"]
    reach = max([abs(bound) for item in shown for bound in (item.low, item.high, item.difference)] + [0.01])
    middle = LABEL_WIDTH + BAR_WIDTH / 2
    height = len(shown) * BAR_HEIGHT
    rows = [f'<line class=axis x1="{middle}" y1="0" x2="{middle}" y2="{height}"/>']
    for number, item in enumerate(shown):
        y = number * BAR_HEIGHT + 11
        low, point, high = (middle + value / reach * BAR_WIDTH / 2 for value in (item.low, item.difference, item.high))
        rows.append(
            f'<text x="0" y="{y + 5}">{escape(f"{item.a} − {item.b}")}</text>'
            f'<line class=range x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>'
            f'<circle class=bar cx="{point:.1f}" cy="{y}" r="5"/>'
            f'<text x="{LABEL_WIDTH + BAR_WIDTH + 10}" y="{y + 5}">{signed(item.difference)}</text>'
        )
    return _drawing("differences in exact match with 95 % intervals", len(shown), rows) if shown else ""


def _drawing(label: str, num_rows: int, parts: Sequence[str]) -> str:
    width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH
    size = f'width="{width}" height="{num_rows * BAR_HEIGHT}"'
    return f'<svg role=img aria-label="{escape(label)}" {size}>{"".join(parts)}</svg>'


def _answers(answers: Mapping[str, Sequence[ScoredAnswer]]) -> str:
    """A sample of the questions with what every system answered."""
    first = next(iter(answers.values()), [])
    step = max(1, -(-len(first) // MAX_QUESTIONS_SHOWN))
    shown = first[::step]
    by_system = {name: {item.question_id: item for item in items} for name, items in answers.items()}
    head = "".join(f"<th>{escape(cell)}</th>" for cell in ("category", "question", "gold", *answers))
    rows = "".join(
        f"<tr><td>{item.category}</td><td>{escape(item.question)}</td><td>{escape(item.gold)}</td>"
        + "".join(_answer_cell(items[item.question_id]) for items in by_system.values())
        + "</tr>"
        for item in shown
    )
    caption = f"<p class=soft>{len(shown):,} of {len(first):,} questions, evenly spaced; all are in answers.jsonl.</p>"
    return f"{caption}<div class=scroll><table><tr>{head}</tr>{rows}</table></div>"


def _answer_cell(answer: ScoredAnswer) -> str:
    if answer.failure is not None:
        return "<td class=wrong><i>does not parse</i></td>"
    return f"<td class={'right' if answer.exact_match else 'wrong'}>{escape(answer.answer) or '<i>empty</i>'}</td>"
