"""The command line. Each command imports what it needs when it is called, so that `memr1 --help` is instant.

Only this module prints errors and decides exit codes: 1 for a Memr1Error, 2 for wrong usage, 130 for Ctrl-C.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.bank_cli import bank
from memr1.errors import Memr1Error

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Memory for language models, learned by reinforcement and run as an operated system.",
    epilog="Start with: memr1 doctor, then memr1 run quickstart.",
)

app.add_typer(bank, name="bank")

Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Set an option; may be repeated. See memr1 config."),
]
NewRunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Where to write. Default: go on with an unfinished run, or runs/PROFILE-DATE-TIME."),
]
Source = Annotated[str, typer.Argument(metavar="PROFILE|FILE.toml|RUN_DIR", help="What to run, or which run goes on.")]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")]


def main() -> None:
    """Entry point of `memr1`."""
    try:
        app()
    except Memr1Error as error:
        notes = getattr(error, "__notes__", [])
        sys.stderr.write("".join(f"{line}\n" for line in (f"memr1: {error}", *notes)))
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error


@app.command()
def run(source: Source, overrides: Overrides = [], run_dir: NewRunDir = None) -> None:  # noqa: B006
    """Do everything, from the dataset to the registry.

    Validates, builds the bank, trains both agents, evaluates, registers. What is done already is not done again:
    repeat the command after an interruption.
    """
    from flows.local import run_pipeline

    run_pipeline(source, overrides, run_dir)


@app.command()
def validate(source: Source, overrides: Overrides = [], run_dir: NewRunDir = None) -> None:  # noqa: B006
    """Stage 1 alone: check the dataset.

    Begins a run, or goes on with one, like memr1 run.
    """
    from flows.local import run_first_stage

    run_first_stage(source, overrides, run_dir)


@app.command()
def build_bank(run_dir: RunDirectory) -> None:
    """Stage 2 alone: build the training banks.

    The untrained Memory Manager reads the training conversations.
    """
    from flows.local import run_stage

    run_stage(run_dir, "build_bank")


@app.command()
def train(
    run_dir: RunDirectory,
    phase: Annotated[
        str | None, typer.Argument(help="One phase: memory-manager, answer-agent, … Default: all, one after the other.")
    ] = None,
) -> None:
    """Stage 3 alone: train both agents, or one.

    The Answer Agent learns on banks that the trained Memory Manager builds, so it comes second. With other
    training.policies the phases are called as their folders in 4_checkpoints are.
    """
    from flows.local import run_training

    run_training(run_dir, phase and phase.replace("-", "_"))


@app.command()
def train_node(
    run_dir: RunDirectory,
    phase: Annotated[str | None, typer.Argument(help="One phase. Default: all that are left, one by one.")] = None,
) -> None:
    """Take part in another machine's training.

    Waits until memr1 run or memr1 train gets there, and ends with it. The run directory must be on a file system that
    both machines see.
    """
    from memr1.console import show_on_terminal
    from memr1.environment import set_environment_defaults
    from memr1.rl.node import join_run
    from memr1.run_dir import RunDir

    set_environment_defaults()
    show_on_terminal()
    join_run(RunDir(run_dir), phase and phase.replace("-", "_"))


@app.command()
def evaluate(
    run_dir: Annotated[Path | None, typer.Argument(metavar="[RUN_DIR]", help="Do stage 4 of this run.")] = None,
    trained_run: Annotated[
        Path | None, typer.Option("--run", help="Score the pair that this run trained, on --data.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Score a registered pair on --data, e.g. models:/memr1@champion.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Any dataset file: LoCoMo, LongMemEval, or your own.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the report goes. Default: a new folder in $MEMR1_HOME/evaluations.")
    ] = None,
) -> None:
    """Stage 4 alone, or score any dataset file.

    With RUN_DIR alone: compares the run's systems on its held-out conversations. With --data: scores a trained pair
    on every conversation of a file.
    """
    if run_dir is not None and not (trained_run or model or data or output):
        from flows.local import run_stage

        run_stage(run_dir, "evaluate")
        return
    if run_dir is not None or data is None or (trained_run is None) == (model is None):
        raise typer.BadParameter("give RUN_DIR alone, or --data with one of --run and --model")
    from flows.scoring import score_file

    score_file(data, trained_run, model, output)


@app.command()
def register(run_dir: RunDirectory) -> None:
    """Stage 5 alone: register the pair.

    It becomes the champion only if it beats the champion on the same questions.
    """
    from flows.local import run_stage

    run_stage(run_dir, "register")


@app.command()
def ask(
    run_dir: RunDirectory,
    conversation: Annotated[str, typer.Argument(metavar="CONVERSATION_ID", help="A conversation of its dataset.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question.")],
) -> None:
    """Ask a finished run's pair a question.

    Shows the answer, and the memories it used.
    """
    from flows.asking import answer_on_terminal

    answer_on_terminal(run_dir, conversation, question)


@app.command()
def config(
    source: Annotated[str | None, typer.Argument(metavar="[PROFILE|FILE.toml]", help="Resolve this one.")] = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Print every option, or a resolved profile.

    A resolved profile is TOML: save it, change it, and give it to memr1 run.
    """
    from flows.reference import describe_options, render_config

    typer.echo(render_config(source, overrides) if source else describe_options(), nl=False)


@app.command()
def doctor() -> None:
    """Tell what this machine has and lacks.

    Exits with 1 when something is missing, and says how to get it.
    """
    from flows.reference import render_checks
    from memr1.machine import check_machine

    checks = check_machine()
    typer.echo(render_checks(checks), nl=False)
    if any(check.state == "missing" for check in checks):
        raise typer.Exit(1)


@app.command()
def environment() -> None:
    """Print memr1's environment, for a shell.

    For prefect and mlflow commands: eval "$(memr1 environment)".
    """
    from flows.reference import render_environment

    typer.echo(render_environment(), nl=False)


if __name__ == "__main__":
    main()
