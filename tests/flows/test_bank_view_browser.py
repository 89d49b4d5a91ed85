"""The pages of `memr1 bank view` in a real browser: what stands on the right at each point, and that nothing runs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from memr1.bank.bank import fold_journal
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.operation import JournalRecord, Operation, Source
from memr1.bank.view import ViewedAnswer, ViewedQuestion, build_view, find_memory
from memr1.bank.view_html import render_page
from tests.bank_histories import apply_steps
from tests.builders import NOON, conversation
from tests.chromium import Chromium, open_chromium

HOSTILE = "</script><img src=x onerror='window.ran=1'><script>window.ran=1</script>"
HELD = """[...document.querySelectorAll('.entry:not([hidden])')].filter((node) => node.dataset.change !== 'DELETE')
    .map((node) => [node.dataset.id, node.querySelector(':scope > p:not([hidden]):last-of-type').textContent])"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with open_chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def records() -> list[JournalRecord]:
    store = InMemoryStore(HashEmbedder(8))
    apply_steps(store, 0, 90)  # c1 hears D1:0, D1:3 …: additions in pairs, an update with a deletion, empty turns
    return store.bank("c1").journal()


@pytest.fixture(scope="module")
def page(records: list[JournalRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    heard = conversation(lines=[("Marta", f"line {number}") for number in range(100)], turns_per_session=100)
    held = fold_journal(records, "c1")
    memories = (find_memory(held[3].text, held), find_memory("forgotten", held))
    right = ViewedAnswer(text="Rome", is_right=True, f1=1.0, memories=memories, num_retrieved=9)
    wrong = ViewedAnswer(text="", is_right=False, f1=0.0, memories=(), num_retrieved=9, failure="mumble")
    asked = {"category": "1", "gold": "Rome", "text": "Where?"}
    questions = [
        ViewedQuestion(id="q1", evidence=("D1:3", "D1:6", "lost"), answer=right, **asked),
        ViewedQuestion(id="q2", answer=wrong, **asked),
    ]
    view = build_view(records, place="journal", system="trained", conversation=heard, questions=questions)
    path = tmp_path_factory.mktemp("page") / "c1.html"
    path.write_text(render_page(view, has_index=False), encoding="utf-8")
    return path


MOVE = "byId('slider').value = {}; byId('slider').dispatchEvent(new Event('input', {{bubbles: true}}))"


def move_slider(browser: Chromium, value: int) -> None:
    browser.value(MOVE.format(value))


def expected(records: Sequence[JournalRecord], point: int) -> list[list[str]]:
    return [[entry.id, entry.text] for entry in fold_journal(records[:point], records[0].scope)]


def texts(browser: Chromium, selector: str) -> list[str]:
    found: list[str] = browser.value(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((n) => n.textContent)"
    )
    return found


def test_the_slider_shows_the_bank_of_every_point(browser: Chromium, page: Path, records: list[JournalRecord]) -> None:
    browser.open(page)
    assert browser.value(HELD) == expected(records, len(records))  # a page opens on the bank as it is
    jumps = [0, len(records), 1, len(records) // 2, 2, *range(len(records), -1, -1), *range(len(records) + 1)]
    moved = "; ".join(
        f"{MOVE.format(point)}; shown.push([{HELD}, parseInt(byId('count').textContent)])" for point in jumps
    )
    shown = browser.value(f"(() => {{ const shown = []; {moved}; return shown }})()")
    for point, (held, count) in zip(jumps, shown, strict=True):
        assert held == expected(records, point), point
        assert count == len(held)
    assert browser.complaints() == []


def test_an_operation_is_told_in_words_beside_its_colour(
    browser: Chromium, page: Path, records: list[JournalRecord]
) -> None:
    browser.open(page)
    for kind in ("ADD", "UPDATE", "DELETE"):
        record = next(item for item in records if item.operation.kind == kind)
        move_slider(browser, record.sequence)
        changed = (record.after or record.before).id  # type: ignore[union-attr]
        assert texts(browser, ".entry.changed .word") == [kind]
        assert browser.value("document.querySelector('.entry.changed').dataset.id") == changed
        old = texts(browser, ".entry.changed p:not([hidden]) > del")
        assert old == ([record.before.text] if record.before else [])
        assert texts(browser, "#step .word") == [kind]
    empty = next(item for item in records if item.operation.kind == "NOOP")
    move_slider(browser, empty.sequence)
    assert texts(browser, "#step .word") == ["NOOP"] and texts(browser, ".entry.changed") == []


def test_keys_and_buttons_step_through_operations_and_turns(
    browser: Chromium, page: Path, records: list[JournalRecord]
) -> None:
    browser.open(page)
    browser.press("Home")
    assert browser.value(HELD) == []
    for _ in range(3):
        browser.press("ArrowRight")
    browser.press("ArrowLeft")
    assert browser.value(HELD) == expected(records, 2)
    browser.click("#next")
    assert browser.value(HELD) == expected(records, 3)
    browser.value("byId('unit').value = 'turn'; byId('unit').dispatchEvent(new Event('change'))")
    browser.click("#first")
    ends = [item.sequence for item in records if item.num_following == 0]
    for end in ends[:8]:
        browser.press("ArrowRight")
        assert browser.value(HELD) == expected(records, end)
    assert texts(browser, ".turn.now button") == [records[ends[7] - 1].source.turn_id]


def test_an_entry_tells_its_history_and_the_turns_that_it_rests_on(
    browser: Chromium, page: Path, records: list[JournalRecord]
) -> None:
    update = next(item for item in records if item.operation.kind == "UPDATE")
    assert update.after is not None
    browser.open(page, hash_=f"#{update.sequence}")
    browser.value(f"document.querySelector('.entry[data-id=\"{update.after.id}\"] button').focus()")
    browser.value("document.activeElement.click()")
    assert texts(browser, ".entry.picked .history .word")[:2] == ["ADD", "UPDATE"]
    assert texts(browser, ".turn.basis .link") == sorted(update.after.turn_ids, key=lambda key: int(key[3:]))
    assert set(texts(browser, ".turn.basis .why")) == {f"entry {update.after.id} rests on this"}
    browser.value("document.querySelector('.history button').click()")  # back to where it was added
    assert browser.value(HELD) == expected(records, int(update.after.id))
    assert len(texts(browser, ".turn.basis")) == 1


def test_an_answer_leads_to_its_memories_and_a_question_to_its_evidence(
    browser: Chromium, page: Path, records: list[JournalRecord]
) -> None:
    browser.open(page, hash_="#1")
    assert texts(browser, "#questions .word") == ["RIGHT", "WRONG"]
    assert texts(browser, "#score") == ["1 of 2 right; trained answered from the finished bank"]
    assert "unreadable: mumble" in texts(browser, "#questions pre")
    browser.value("document.querySelector('#questions dd button').click()")
    assert browser.value(HELD) == expected(records, len(records))
    assert browser.value("document.querySelector('.entry.picked').dataset.id") == expected(records, len(records))[3][0]
    browser.value("[...document.querySelectorAll('#questions button')].at(-1).click()")
    assert texts(browser, ".turn.basis .link") == ["D1:3", "D1:6"]
    browser.value("byId('shown').value = 'wrong'; byId('shown').dispatchEvent(new Event('change'))")
    assert texts(browser, "#questions > li:not([hidden]) .word") == ["WRONG"]


def write_hostile(path: Path) -> None:
    source = Source(turn_id=HOSTILE, speaker=HOSTILE, time=NOON, policy=HOSTILE)
    bank = InMemoryStore(HashEmbedder(8)).bank(HOSTILE)
    bank.apply([Operation(kind="ADD", text=HOSTILE)], source)
    bank.apply([], source.model_copy(update={"failure": HOSTILE}))
    answer = ViewedAnswer(
        text=HOSTILE, is_right=False, f1=0, num_retrieved=1, memories=(find_memory(HOSTILE, bank.entries()),)
    )
    question = ViewedQuestion(id="q", category=HOSTILE, text=HOSTILE, gold=HOSTILE, evidence=(HOSTILE,), answer=answer)
    heard = conversation(HOSTILE, lines=[(HOSTILE, HOSTILE)])
    view = build_view(bank.journal(), place=HOSTILE, system=HOSTILE, conversation=heard, questions=[question])
    path.write_text(render_page(view, has_index=True), encoding="utf-8")


def test_hostile_words_are_shown_and_run_nothing(browser: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    write_hostile(path)
    browser.open(path)
    del browser.requests[:]
    for point in (0, 1, 2):
        browser.value(f"go({point})")
        browser.value(
            "[...document.querySelectorAll('main button, #questions button')].forEach((node) => node.click())"
        )
    assert browser.value("[typeof window.ran, document.images.length, document.scripts.length]") == ["undefined", 0, 2]
    assert HOSTILE in texts(browser, ".entry > p:not([hidden])")
    assert browser.requests == [] and browser.complaints() == []


def test_a_page_asks_for_nothing_but_itself(browser: Chromium, page: Path) -> None:
    del browser.requests[:]
    browser.open(page)
    assert browser.requests == [page.as_uri()]


def test_a_thousand_entries_move_without_waiting(browser: Chromium, tmp_path: Path) -> None:
    bank = InMemoryStore(HashEmbedder(8)).bank("c1")
    for number in range(1000):
        source = Source(turn_id=f"D1:{number}", speaker="Ann", time=NOON, policy="test")
        bank.apply([Operation(kind="ADD", text=f"fact {number}")], source)
    path = tmp_path / "large.html"
    path.write_text(render_page(build_view(bank.journal(), place="x"), has_index=False), encoding="utf-8")
    browser.open(path)
    assert max(browser.seconds(f"go({point})") for point in (0, 1000, 500)) < 2  # a tenth of that, as a rule
    assert max(browser.seconds(f"go({point})") for point in (501, 502, 503)) < 0.2  # a hundredth of a second
