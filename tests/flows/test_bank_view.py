"""`memr1 bank view`: which bank, conversation and answers it finds, and what it writes."""

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from memr1.bank.embedding import HashEmbedder
from memr1.bank.in_memory import InMemoryStore
from memr1.bank.operation import Operation, Source
from memr1.data.stored import write_dataset
from memr1.errors import BankError, ConfigError
from memr1.evaluation.scores import score_answer
from memr1.records import write_jsonl
from memr1.run_dir import RunDir
from tests.builders import NOON, conversation, dataset, question


def write_bank(folder: Path, *scopes: str) -> None:
    with closing(InMemoryStore(HashEmbedder(8), folder)) as store:
        for scope in scopes:
            source = Source(turn_id="D1:1", speaker="Ann", time=NOON, policy=folder.parent.name)
            store.bank(scope).apply([Operation(kind="ADD", text="Ann lives in Rome")], source)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """c1 trains; c2 and c3 are evaluated by two systems, of which only `trained` answers right."""
    run = RunDir(tmp_path / "run")
    asked = [question(f"q{number}", conversation_id=f"c{number}") for number in (1, 2, 3)]
    conversations = [conversation(f"c{number}") for number in (1, 2, 3)]
    write_dataset(run, dataset(conversations, asked, splits={"train": ["c1"], "test": ["c2", "c3"]}))
    write_bank(run.bank / "store", "c1")
    answers = []
    for system, answer in (("warm_start", "Oslo"), ("trained", "Rome")):
        folder = run.evaluation / "systems" / system
        write_bank(folder / "bank", "c2", "c3")
        given = [
            score_answer(
                system, item, answer, memories=["Ann lives in Rome"], num_retrieved=1, retrieved_turns=(), kept_turns=()
            )
            for item in asked[1:]
        ]
        write_jsonl(folder / "answers.jsonl", given)
        answers += given
    write_jsonl(run.evaluation / "answers.jsonl", answers)
    return run


def view(tmp_path: Path, *words: object) -> Path:
    output = tmp_path / "pages"
    asked = ["bank", "view", *map(str, words), "--output", str(output)]
    result = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Path(result.stdout.strip())


def data_of(page: Path) -> Any:
    return json.loads(page.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0])


def test_a_run_directory_shows_its_training_banks(run: RunDir, tmp_path: Path) -> None:
    page = view(tmp_path, run.root)
    assert page == tmp_path / "pages" / "c1.html"
    shown = data_of(page)
    assert [turn["text"] for turn in shown["turns"]] == ["I live in Rome.", "I drive a Fiat."]
    assert [(item["id"], item["answer"]) for item in shown["questions"]] == [("q1", None)]
    assert not (tmp_path / "pages" / "index.html").exists()


def test_a_system_shows_the_banks_that_it_was_evaluated_with_and_its_answers(run: RunDir, tmp_path: Path) -> None:
    index = view(tmp_path, run.root, "--system", "trained")
    text = index.read_text(encoding="utf-8")
    assert index.name == "index.html" and 'href="c2.html"' in text and text.count("1 of 1 right") == 2
    shown = data_of(tmp_path / "pages" / "c2.html")
    (asked,) = shown["questions"]
    assert (shown["system"], asked["answer"]["text"], asked["answer"]["is_right"]) == ("trained", "Rome", True)
    assert asked["answer"]["memories"] == [{"text": "Ann lives in Rome", "entry_ids": ["1"]}]
    assert "All conversations" in (tmp_path / "pages" / "c2.html").read_text(encoding="utf-8")


def test_a_banks_own_folder_finds_the_same(run: RunDir, tmp_path: Path) -> None:
    page = view(tmp_path, run.evaluation / "systems" / "warm_start" / "bank", "--scope", "c3")
    shown = data_of(page)
    assert (page.name, shown["system"], shown["questions"][0]["answer"]["is_right"]) == ("c3.html", "warm_start", False)
    assert shown["knows_words"]


def test_an_evaluation_that_has_no_answers_yet_shows_its_banks(run: RunDir, tmp_path: Path) -> None:
    (run.evaluation / "systems" / "trained" / "answers.jsonl").unlink()
    view(tmp_path, run.root, "--system", "trained")
    assert data_of(tmp_path / "pages" / "c2.html")["questions"][0]["answer"] is None


def test_a_bank_that_lies_elsewhere_is_told_its_run_and_its_answers(run: RunDir, tmp_path: Path) -> None:
    away = tmp_path / "away" / "deep"
    shutil.copytree(run.evaluation / "systems" / "trained" / "bank", away)
    shown = data_of(view(tmp_path, away, "--scope", "c2"))
    assert not shown["knows_words"] and shown["questions"] == []
    words = [away, "--scope", "c2", "--answers", run.root, "--system", "warm_start"]
    shown = data_of(view(tmp_path, *words))
    assert shown["knows_words"] and shown["questions"][0]["answer"]["text"] == "Oslo"
    shown = data_of(view(tmp_path, away, "--scope", "c2", "--run", run.root))
    assert shown["knows_words"] and shown["questions"][0]["answer"] is None


def test_a_wrong_system_is_refused_with_those_that_there_are(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'champion': choose among trained, warm_start"):
        view(tmp_path, run.root, "--system", "champion")
    with pytest.raises(ConfigError, match="no answers lie beside"):
        view(tmp_path, run.bank / "store", "--system", "trained")


def test_a_folder_without_training_banks_says_how_to_name_others(run: RunDir, tmp_path: Path) -> None:
    shutil.rmtree(run.bank)
    with pytest.raises(BankError, match=r"name a system with --system \(trained, warm_start\)"):
        view(tmp_path, run.root)


def test_pages_are_written_again_and_other_files_are_not(run: RunDir, tmp_path: Path) -> None:
    page = view(tmp_path, run.root)
    assert view(tmp_path, run.root) == page
    page.write_text("<p>mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="choose another --output"):
        view(tmp_path, run.root)
    assert page.read_text(encoding="utf-8") == "<p>mine"
