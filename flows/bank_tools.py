"""What `memr1 bank` prints. What was asked for goes to standard output, one record per line; the rest to the log."""

import logging
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from memr1.bank.entry import MemoryEntry
from memr1.bank.exchange import export_bank, find_journal, import_bank, read_scope, restore_bank
from memr1.bank.history import (
    BankDifference,
    Point,
    compare_banks,
    compare_points,
    count_records,
    entries_at,
    entry_history,
)
from memr1.bank.journal import read_journal, records_by_scope
from memr1.bank.operation import JournalRecord
from memr1.config import AGENTS, AgentName, RunConfig
from memr1.console import render_table, show_on_terminal, show_progress
from memr1.data.stored import read_dataset
from memr1.environment import embedding_cache, set_hub_default
from memr1.errors import CheckpointMissing, ConfigError
from memr1.run_dir import RunDir
from memr1.run_start import names_hub_model, read_config

if TYPE_CHECKING:
    from memr1.agents.fact_extractor import FactExtractor
    from memr1.agents.memory_manager import ManagerPolicy

log = logging.getLogger(__name__)


def parse_point(text: str) -> Point:
    """A sequence number, or an ISO time; a date alone is its whole day. Raises ConfigError."""
    if text.isdecimal():
        return int(text)
    try:
        point = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is no point: give a sequence number, or a time such as 2024-05-01T18:30"
        ) from error
    return point.replace(hour=23, minute=59, second=59, microsecond=999_999) if len(text) <= 10 else point


def print_log(place: Path, scope: str | None, entry_id: str | None) -> None:
    """`memr1 bank log`."""
    records = read_scope(place, scope)
    for record in records if entry_id is None else entry_history(records, entry_id):
        print(_describe_record(record))


def print_entries(place: Path, scope: str | None, at: str | None) -> None:
    """`memr1 bank show`."""
    records = read_scope(place, scope)
    for entry in entries_at(records, parse_point(at) if at else len(records)):
        print(_describe_entry(entry))


def print_difference(place: Path, other: Path | None, scope: str | None, since: str | None, until: str | None) -> None:
    """`memr1 bank diff`."""
    records = read_scope(place, scope)
    if other is not None:
        theirs = read_scope(other, records[0].scope)
        difference = compare_banks(entries_at(records, len(records)), entries_at(theirs, len(theirs)))
    else:
        before = entries_at(records, parse_point(since) if since else 0)
        difference = compare_points(before, entries_at(records, parse_point(until) if until else len(records)))
    _print_difference(difference)


def restore_point(place: Path, scope: str | None, to: str) -> None:
    """`memr1 bank restore`."""
    show_on_terminal()
    records = restore_bank(place, scope, parse_point(to))
    if not records:
        log.info("the bank stands at this point already: nothing to restore")
        return
    for record in records:
        print(_describe_record(record))
    log.info("%d records appended. Undo: memr1 bank restore %s --to %d", len(records), place, records[0].sequence - 1)


def replay_policy(place: Path, run_dir: Path, policy: str, output: Path | None, scope: str | None) -> None:
    """`memr1 bank replay`."""
    show_on_terminal()
    journal = read_scope(place, scope) if scope is not None else read_journal(find_journal(place))
    from memr1.agents.replay import replay_journal
    from memr1.bank.embedding import build_embedder
    from memr1.bank.in_memory import InMemoryStore

    run = RunDir(run_dir)
    config = read_config(run)
    manager, extractor = _load_policy(run, config, policy)
    embedder = build_embedder(embedding_cache())
    with closing(InMemoryStore(embedder, output)) as store, show_progress("replaying") as on_progress:
        replayed, summary = replay_journal(
            journal,
            read_dataset(run).conversations,
            manager,
            extractor,
            store,
            entries_per_turn=config.retrieval.entries_per_turn,
            embedder=embedder,
            on_step=on_progress,
        )
    for item in replayed:
        print(f"scope {item.scope}, {item.num_turns} turns, now under {manager.name}:")
        _print_difference(item.difference)
    log.info("%d turns decided, %d unreadable, %.1f s", summary.num_calls, summary.num_parse_failures, summary.seconds)


def export_file(place: Path, file: Path, scope: str | None) -> None:
    """`memr1 bank export`."""
    show_on_terminal()
    log.info("%d records in %s", export_bank(place, file, scope), file)


def import_file(file: Path, folder: Path) -> None:
    """`memr1 bank import`."""
    show_on_terminal()
    log.info("%d records added to %s", import_bank(file, folder), folder)


def print_statistics(place: Path, scope: str | None) -> None:
    """`memr1 bank stats`."""
    by_scope = records_by_scope(read_journal(find_journal(place)))
    chosen = [scope] if scope is not None else list(by_scope)
    counted = [count_records(name, by_scope[name] if scope is None else read_scope(place, name)) for name in chosen]
    head = ["scope", "records", "turns", "entries", "ADD", "UPDATE", "DELETE", "NOOP", "unreadable", "policies"]
    rows = []
    for one in counted:
        numbers = [one.num_records, one.num_turns, one.num_entries]
        numbers += [one.operations.get(kind, 0) for kind in ("ADD", "UPDATE", "DELETE", "NOOP")]
        rows.append([one.scope, *map(str, [*numbers, one.num_failures]), ", ".join(one.records_by_policy)])
    print(render_table(head, rows))


def _load_policy(run: RunDir, config: RunConfig, policy: str) -> "tuple[ManagerPolicy, FactExtractor]":
    """always-add loads no model of its own."""
    set_hub_default(names_hub_model(config))
    from memr1.agents.fact_extractor import build_extractor
    from memr1.agents.pair import build_pair
    from memr1.evaluation.baselines import AlwaysAddManager

    if policy == "always-add":
        return AlwaysAddManager(), build_extractor(config.extraction)
    if policy == "trained" and not run.model("memory_manager").is_dir():
        raise CheckpointMissing(
            f"{run.root} has no trained memory_manager yet: finish it with `memr1 run {run.root}`, or replay with "
            "--policy untrained or always-add"
        )
    models: dict[AgentName, Path | None] = dict.fromkeys(AGENTS)
    if policy == "trained":
        models["memory_manager"] = run.model("memory_manager")
    pair = build_pair(config, models)
    return pair.manager, pair.extractor


def _describe_record(record: JournalRecord) -> str:
    source, operation = record.source, record.operation
    what = {
        "ADD": f"ADD {record.after.id if record.after else ''}: {operation.text}",
        "UPDATE": f"UPDATE {operation.entry_id}: {record.before.text if record.before else ''} → {operation.text}",
        "DELETE": f"DELETE {operation.entry_id}: {record.before.text if record.before else ''}",
        "NOOP": "NOOP",
    }[operation.kind]
    if source.failure is not None:
        what = f"unreadable output: {source.failure[:200]!r}"
    heard = f"{source.time:%Y-%m-%d %H:%M}  {source.turn_id}  {source.speaker}"
    return f"{record.sequence}  {heard}  [{source.policy}]  {what}"


def _describe_entry(entry: MemoryEntry) -> str:
    turns = ", ".join(entry.turn_ids)
    return f"{entry.id}  {entry.time:%Y-%m-%d %H:%M}  {entry.speaker}: {entry.text}  (turns {turns})"


def _print_difference(difference: BankDifference) -> None:
    """Lines that begin with -, + or ~, then the counts."""
    for entry in difference.removed:
        print(f"- {_describe_entry(entry)}")
    for entry in difference.added:
        print(f"+ {_describe_entry(entry)}")
    for change in difference.changed:
        print(f"~ {_describe_entry(change.before)}\n  → {change.after.text}")
    counts = f"{len(difference.removed)} only before, {len(difference.added)} only after"
    print(f"{counts}, {len(difference.changed)} changed, {difference.num_equal} equal")
