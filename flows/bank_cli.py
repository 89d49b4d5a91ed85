"""`memr1 bank …`: the memory bank's past and present on the command line. `flows.bank_tools` does the work."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

bank = typer.Typer(
    no_args_is_help=True,
    help="Look into a memory bank, view, compare, restore, replay, export and import it.",
)

Bank = Annotated[
    Path, typer.Argument(metavar="BANK", help="A bank's folder, its journal, or a run directory (its training banks).")
]
Scope = Annotated[
    str | None, typer.Option(help="Conversation or user id. Not needed where the bank has only one, or to see all.")
]
OneScope = Annotated[str | None, typer.Option(help="Conversation or user id. Not needed where the bank has only one.")]
POINT = "A sequence number, or a time such as 2024-05-01 or 2024-05-01T18:30."


class Policy(StrEnum):
    """Who decides in a replay."""

    trained = "trained"
    untrained = "untrained"
    always_add = "always-add"


@bank.command()
def log(
    place: Bank,
    scope: OneScope = None,
    entry: Annotated[str | None, typer.Option(help="Only what happened to this entry.")] = None,
) -> None:
    """Every change, oldest first: turn, policy, and the words before and after."""
    from flows.bank_tools import print_log

    print_log(place, scope, entry)


@bank.command()
def show(
    place: Bank,
    scope: OneScope = None,
    at: Annotated[str | None, typer.Option(metavar="POINT", help=f"As it stood then. {POINT}")] = None,
) -> None:
    """The entries, now or at an earlier point."""
    from flows.bank_tools import print_entries

    print_entries(place, scope, at)


@bank.command()
def diff(
    place: Bank,
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="Compare with the same scope of this bank.")
    ] = None,
    scope: OneScope = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="POINT", help=f"Of BANK. {POINT} Default: 0, empty.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="POINT", help="Of BANK. Default: its end.")] = None,
) -> None:
    """What differs between two points of a bank, or between two banks."""
    if other is not None and (since or until):
        raise typer.BadParameter("give OTHER, or --from and --to")
    from flows.bank_tools import print_difference

    print_difference(place, other, scope, since, until)


@bank.command()
def restore(
    place: Bank,
    to: Annotated[str, typer.Option(metavar="POINT", help=POINT)],
    scope: OneScope = None,
) -> None:
    """Bring a bank back to an earlier point.

    The way back is appended to the journal, so nothing is lost and a restore can itself be restored. A build that goes
    on reads the turns behind the point again.
    """
    from flows.bank_tools import restore_point

    restore_point(place, scope, to)


@bank.command()
def replay(
    place: Bank,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run with the conversations and the models.")],
    policy: Annotated[Policy, typer.Option(help="Who decides on the turns this time.")] = Policy.trained,
    output: Annotated[
        Path | None, typer.Option(help="Keep the new bank in this folder. Default: only compare.")
    ] = None,
    scope: Scope = None,
) -> None:
    """Read a journal's turns again under another policy, and compare the banks."""
    from flows.bank_tools import replay_policy

    replay_policy(place, run_dir, policy.value, output, scope)


@bank.command("export")
def export_(
    place: Bank,
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="A new file.")],
    scope: Scope = None,
) -> None:
    """Write the whole journal, or one scope's, to a file: JSON Lines, without loss."""
    from flows.bank_tools import export_file

    export_file(place, file, scope)


@bank.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="What memr1 bank export wrote.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A bank's folder; it may be new.")],
) -> None:
    """Append an exported file to a bank that does not have its scopes yet: all of it or nothing."""
    from flows.bank_tools import import_file

    import_file(file, folder)


@bank.command()
def view(
    place: Bank,
    scope: Scope = None,
    system: Annotated[
        str | None,
        typer.Option(help="Of an evaluation: trained, warm_start … The banks that it built in a run, and its answers."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="The run with the conversations. Default: the one that BANK lies in."),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR|FILE", help="Answers from the bank. Default: those that lie beside BANK."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder of the pages.")] = Path("bank_view"),
) -> None:
    """Write an HTML page for each conversation: its turns, its bank at every point, questions and answers.

    A page is one file that needs no network: a slider goes through the operations, an entry shows its history and the
    turns that it rests on, an answer its memories.
    """
    from flows.bank_view import write_pages

    write_pages(place, scope, system, run, answers, output)


@bank.command()
def stats(place: Bank, scope: Scope = None) -> None:
    """Entries, operations, policies and unreadable outputs of every scope."""
    from flows.bank_tools import print_statistics

    print_statistics(place, scope)
