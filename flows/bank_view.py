"""`memr1 bank view`: finds a bank's conversation and answers, and writes its pages."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memr1.bank.bank import fold_journal
from memr1.bank.exchange import find_journal, read_scope
from memr1.bank.history import count_records
from memr1.bank.in_memory import JOURNAL_NAME
from memr1.bank.journal import read_journal, records_by_scope
from memr1.bank.operation import JournalRecord
from memr1.bank.view import BankView, build_view
from memr1.bank.view_html import INDEX_NAME, MARK, IndexRow, name_pages, render_index, render_page
from memr1.console import show_on_terminal
from memr1.data.conversation import Dataset
from memr1.data.stored import read_dataset
from memr1.errors import BankError, ConfigError
from memr1.evaluation.report import ANSWERS_NAME, category_names
from memr1.evaluation.scores import ScoredAnswer
from memr1.evaluation.viewing import read_system_answers, view_questions
from memr1.records import write_text
from memr1.run_dir import RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sources:
    """What the pages are made from; the dataset and the answers where they are known."""

    journal: Path
    dataset: Dataset | None
    answers: Sequence[ScoredAnswer]

    @property
    def system(self) -> str:
        return self.answers[0].system if self.answers else ""

    def view(self, records: Sequence[JournalRecord]) -> BankView:
        scope = records[0].scope
        known = self.dataset.conversations if self.dataset else ()
        questions = self.dataset.questions if self.dataset else ()
        categories = category_names(self.dataset.name if self.dataset else "")
        finished = fold_journal(records, scope)
        return build_view(
            records,
            place=str(self.journal),
            system=self.system,
            conversation=next((item for item in known if item.id == scope), None),
            questions=view_questions(scope, questions, self.answers, finished, categories),
        )


def write_pages(
    place: Path, scope: str | None, system: str | None, run: Path | None, answers: Path | None, output: Path
) -> None:
    """Write the pages and print the path of the one to open. Raises BankError, EvaluationError, ConfigError."""
    show_on_terminal()
    sources = _find_sources(place, system, run, answers)
    by_scope = records_by_scope(read_journal(sources.journal))
    if scope is not None:
        by_scope = {scope: read_scope(sources.journal, scope)}
    if not by_scope:
        raise BankError(f"{sources.journal} has no record: there is nothing to view yet")
    names = name_pages(list(by_scope))
    has_index = len(names) > 1
    _refuse_foreign([output / name for name in (*names.values(), *([INDEX_NAME] if has_index else []))])
    rows = []
    for key, records in by_scope.items():
        view = sources.view(records)
        _write(output / names[key], render_page(view, has_index=has_index))
        rows.append(_index_row(names[key], view, records))
    if has_index:
        _write(output / INDEX_NAME, render_index(rows, place=str(sources.journal), system=sources.system))
    if sources.dataset is None:
        log.info("the words of the conversations are not known here: name their run with --run")
    log.info("%d page%s; open in a browser:", len(rows), "" if len(rows) == 1 else "s")
    print(output / (INDEX_NAME if has_index else rows[0].file_name))


def _find_sources(place: Path, system: str | None, run: Path | None, answers: Path | None) -> _Sources:
    """The dataset of the run that was named, or that the bank or the answers lie in; answers that lie beside a bank."""
    journal = _find_journal(place, system)
    file = _answers_file(answers) if answers is not None else _answers_beside(journal)
    if system is not None and file is None and not _systems(place).is_dir():
        raise ConfigError(f"no answers lie beside {journal}: --system needs a run directory, or --answers")
    owner = RunDir(run) if run is not None else _run_around(journal) or (_run_around(file) if file else None)
    dataset = read_dataset(owner) if owner is not None else None
    built_by = journal.resolve().parent.parent.name if _answers_beside(journal) else None  # systems/<system>/bank
    return _Sources(journal, dataset, read_system_answers(file, system or built_by) if file is not None else ())


def _find_journal(place: Path, system: str | None) -> Path:
    """With a system, a run directory stands for the banks of its evaluation, otherwise for its training banks."""
    systems = _systems(place)
    if not systems.is_dir():
        return find_journal(place)  # then --system chooses among the answers
    built = sorted(path.parents[1].name for path in systems.glob(f"*/bank/{JOURNAL_NAME}"))
    if system is not None and system not in built:
        raise ConfigError(f"{systems} has no bank of a system {system!r}: choose among {', '.join(built) or 'none'}")
    try:
        return find_journal(place) if system is None else systems / system / "bank" / JOURNAL_NAME
    except BankError as error:  # what `memr1 evaluate --data` writes has no training banks
        raise BankError(f"{place} has no training bank: name a system with --system ({', '.join(built)})") from error


def _systems(place: Path) -> Path:
    return RunDir(place).evaluation / "systems"


def _answers_file(place: Path) -> Path:
    return place if place.is_file() else RunDir(place).evaluation / ANSWERS_NAME


def _answers_beside(journal: Path) -> Path | None:
    """An evaluation keeps a system's answers beside the folder of its banks."""
    path = journal.resolve().parent.parent / ANSWERS_NAME
    return path if path.is_file() else None


def _run_around(path: Path) -> RunDir | None:
    return next((RunDir(folder) for folder in path.resolve().parents if RunDir(folder).dataset.is_file()), None)


def _index_row(file_name: str, view: BankView, records: Sequence[JournalRecord]) -> IndexRow:
    given = [question.answer for question in view.questions if question.answer is not None]
    return IndexRow(
        file_name=file_name,
        statistics=count_records(view.scope, records),
        num_right=sum(answer.is_right for answer in given),
        num_asked=len(given),
    )


def _refuse_foreign(paths: Sequence[Path]) -> None:
    """Only pages are written again: --output may be a folder with other things in it."""
    for path in paths:
        if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
            raise ConfigError(f"{path} exists and is no page of memr1 bank view: choose another --output")


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Choose another --output") from error
