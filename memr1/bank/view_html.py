"""The pages of `memr1 bank view`: one document per conversation with its style, script and data inside.

The data are JSON in a block that no browser executes, `<` written as an escape; the script builds the page from them by
text nodes alone. Besides, the document's own policy allows this one script and nothing from any network, so that no
words of a conversation can run or load anything.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

from memr1.bank.history import BankStatistics
from memr1.bank.view import BankView
from memr1.records import Record

MARK = '<meta name="generator" content="memr1 bank view">'  # in every page: only such files are written again
SCRIPTS = ("past.js", "panes.js", "questions.js", "moving.js")  # one after another they are the page's script
INDEX_NAME = "index.html"
COLUMNS = ("conversation", "turns", "operations", "ADD", "UPDATE", "DELETE", "NOOP", "unreadable", "entries", "answers")


class IndexRow(Record):
    """A conversation in the index. `num_right` of `num_asked` answers are right."""

    file_name: str
    statistics: BankStatistics
    num_right: int
    num_asked: int


def render_page(view: BankView, *, has_index: bool) -> str:
    """The document of one conversation."""
    data = json.dumps(view.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    style, script = _read("page.css"), "".join(map(_read, SCRIPTS))
    return Template(_read("page.html")).substitute(
        mark=MARK,
        policy=_policy(style, script),
        title=escape(f"Memory bank of {view.scope}"),
        style=style,
        script=script,
        data=data,
        back=f'<a href="{INDEX_NAME}">All conversations</a>' if has_index else "",
    )


def render_index(rows: Sequence[IndexRow], *, place: str, system: str) -> str:
    """The document that leads to the others."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in COLUMNS)
    style = _read("page.css")
    body = "".join(_index_row(row) for row in rows)
    answered = f" Answers of {escape(system)}." if system else ""
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta name=viewport content="width=device-width">{MARK}'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style)}"><title>Memory banks</title>'
        f"<style>{style}</style></head>\n<body><h1>Memory banks</h1><p class=soft>{escape(place)}.{answered}</p>"
        f"<div class=wide><table><tr>{head}</tr>{body}</table></div></body></html>\n"
    )


def name_pages(scopes: Sequence[str]) -> dict[str, str]:
    """A file name for each scope: its own letters where that is safe and leaves no two alike, even in other cases."""
    plain = {scope: re.sub(r"[^\w.-]+", "_", scope, flags=re.ASCII).lstrip(".")[:80] for scope in scopes}
    taken = Counter(name.lower() for name in plain.values())
    taken["index"] += 1
    return {
        scope: f"{name}.html" if name == scope and taken[name.lower()] == 1 else f"{name}-{_digest(scope)}.html"
        for scope, name in plain.items()
    }


def _index_row(row: IndexRow) -> str:
    counts = row.statistics
    numbers = [counts.num_turns, counts.num_records]
    numbers += [counts.operations.get(kind, 0) for kind in ("ADD", "UPDATE", "DELETE", "NOOP")]
    numbers += [counts.num_failures, counts.num_entries]
    cells = [*map(str, numbers), f"{row.num_right} of {row.num_asked} right" if row.num_asked else "–"]
    link = f'<a href="{escape(row.file_name)}">{escape(counts.scope)}</a>'
    return f"<tr><td>{link}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _policy(style: str, script: str | None = None) -> str:
    """Nothing is loaded, and only these texts count as style and script."""
    scripts = f"script-src {_source(script)}; " if script is not None else ""
    return f"default-src 'none'; {scripts}style-src {_source(style)}; base-uri 'none'; form-action 'none'"


def _source(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _read(name: str) -> str:
    return resources.files("memr1.bank").joinpath(f"viewer/{name}").read_text(encoding="utf-8")
