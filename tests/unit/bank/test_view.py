"""What a page about a bank holds, and that nothing in it can run."""

import hashlib
import json
import re
from base64 import b64encode

import pytest

from memr1.bank.bank import fold_journal
from memr1.bank.embedding import HashEmbedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.history import count_records, restoring_records
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.bank.view import BankView, UsedMemory, build_view, find_memory
from memr1.bank.view_html import IndexRow, name_pages, render_index, render_page
from memr1.errors import BankError
from tests.bank_histories import SCOPES, apply_steps
from tests.builders import NOON, conversation, entry

HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u2028 ${1} $data &amp;"
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def journal(scope: str = "c1") -> list[JournalRecord]:
    store = InMemoryStore(HashEmbedder(8))
    apply_steps(store, 0, 60)
    return store.bank(scope).journal()


def entries_in_view(view: BankView, sequence: int) -> list[MemoryEntry]:
    """What the page's script shows at a point, in the same way."""
    newest = ([state for state in states if state.sequence <= sequence][-1:] for states in view.states.values())
    return [state.entry for found in newest for state in found if state.entry is not None]


def assert_is_folded(view: BankView, records: list[JournalRecord]) -> None:
    for point in range(len(records) + 1):
        assert entries_in_view(view, point) == fold_journal(records[:point], view.scope)


@pytest.mark.parametrize("scope", SCOPES)
def test_the_entries_at_every_operation_are_those_of_the_journal(scope: str) -> None:
    records = journal(scope)
    assert_is_folded(build_view(records, place="x"), records)


def test_a_restored_entry_goes_back_to_its_place() -> None:
    records = journal()
    records += restoring_records(records, len(records) // 2)
    assert_is_folded(build_view(records, place="x"), records)


def test_the_page_carries_the_view_without_loss() -> None:
    view = build_view(journal(), place="x", conversation=conversation())
    found = DATA.search(render_page(view, has_index=True))
    assert found is not None and BankView.model_validate_json(found[1]) == view


def test_an_operation_tells_its_entry_and_how_many_of_its_turn_follow() -> None:
    store = InMemoryStore(HashEmbedder(8))
    source = Source(turn_id="D1:1", speaker="Ann", time=NOON, policy="test")
    bank = store.bank("c1")
    bank.apply([Operation(kind="ADD", text="a"), Operation(kind="DELETE", entry_id="1")], source)
    bank.apply([], source.model_copy(update={"failure": "garbage"}))
    shown = build_view(bank.journal(), place="x").operations
    told = [(item.kind, item.entry_id, item.num_following, item.source.failure) for item in shown]
    assert told == [("ADD", "1", 1, None), ("DELETE", "1", 0, None), ("NOOP", "", 0, "garbage")]


def test_turns_are_the_conversations_and_then_those_that_only_the_journal_names() -> None:
    records = journal()  # of the turns D1:0, D1:3, D1:6 …
    known = build_view(records, place="x", conversation=conversation(lines=[("Ann", "Hello.")] * 4))
    assert [(turn.id, turn.text) for turn in known.turns[:6]] == [
        *((f"D1:{number}", "Hello.") for number in (1, 2, 3, 4)),
        ("D1:0", None),
        ("D1:6", None),
    ]
    alone = build_view(records, place="x")
    assert not alone.knows_words
    assert [turn.id for turn in alone.turns] == [f"D1:{number}" for number in range(0, 60, 3)]


def test_a_journal_that_contradicts_itself_is_not_shown() -> None:
    with pytest.raises(BankError, match="contradicts"):
        build_view(journal()[1:], place="x")


def test_the_words_of_a_memory_name_every_entry_that_has_them() -> None:
    entries = [entry("1", "a"), entry("2", "b"), entry("3", "a")]
    assert find_memory("a", entries) == UsedMemory(text="a", entry_ids=("1", "3"))
    assert find_memory("c", entries).entry_ids == ()


def hostile_view() -> BankView:
    store = InMemoryStore(HashEmbedder(8))
    source = Source(turn_id=HOSTILE, speaker=HOSTILE, time=NOON, policy=HOSTILE, failure=HOSTILE)
    store.bank(HOSTILE).apply([Operation(kind="ADD", text=HOSTILE)], source)
    return build_view(store.bank(HOSTILE).journal(), place=HOSTILE)


def test_hostile_words_stay_words() -> None:
    view = hostile_view()
    page = render_page(view, has_index=False)
    assert "<img" not in page and "<!--" not in page
    assert page.count("</script>") == 2
    found = DATA.search(page)
    assert found is not None and json.loads(found[1])["scope"] == HOSTILE
    statistics = count_records(HOSTILE, journal())
    row = IndexRow(file_name=name_pages([HOSTILE])[HOSTILE], statistics=statistics, num_right=0, num_asked=0)
    assert "<img" not in render_index([row], place=HOSTILE, system=HOSTILE)


def test_the_page_allows_its_own_script_and_style_and_nothing_from_a_network() -> None:
    page = render_page(hostile_view(), has_index=False)
    script, style = page.rsplit("<script>", 1)[1].split("</script>")[0], page.split("<style>")[1].split("</style>")[0]
    for text in (script, style):
        assert f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in page
    assert "default-src 'none'" in page
    assert "http:" not in script + style and "https:" not in script + style and "url(" not in style


def test_file_names_are_safe_and_never_alike() -> None:
    scopes = ["conv-26", "index", "../etc", "..", "A", "a", "b/c", "b_c", "日本"]
    names = name_pages(scopes)
    assert names["conv-26"] == "conv-26.html"
    assert len({name.lower() for name in names.values()}) == len(scopes)
    assert all(re.fullmatch(r"[\w-][\w.-]*\.html", name, re.ASCII) for name in names.values())
    assert "index.html" not in names.values()
