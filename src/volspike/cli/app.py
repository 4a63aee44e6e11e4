"""The command line: all subcommands under one name, how their arguments are read, and how an error ends.

Only the module of the command that runs is imported, so that help, refusals and small commands start at once.
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, wraps
from importlib import import_module
from keyword import iskeyword
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

import volspike
from volspike.errors import VolspikeError

COMMANDS: Final = {
    "up": "Listen to a market, score every tick, record it, and show it on a page.",
    "alert-test": "Send a message marked TEST to each receiver of alerts; status 1 if one does not get it.",
    "ingest": "Record an exchange's market hour by hour, with a ledger of every gap.",
    "replay": "Replay recorded tapes through the feature engine into a Parquet file.",
    "label": "Add future_volatility, volatility_spike and tau to a feature file.",
    "consolidate": "Merge feature files without duplicate rows, label the result, and split it on request.",
    "train": "Train models, compare them with the best baseline on held-out rows, and write their artifacts.",
    "audit": "Score a model under two split methods on your data and on noise: a score on noise is not skill.",
    "analyze": "Rate features on held-out rows: importance, correlation, and which of them to train on.",
    "report": "Score trained models on held-out rows, compared with the best baseline, in a report (PDF or HTML).",
    "backtest": "Replay a model's alerts on recorded rows: what they caught, what they missed, and what they cost.",
    "drift": "Test features for drift by blocks of time, so that an unchanged market raises no alarm.",
    "retrain": "Train a challenger on recorded data and promote it once it is no worse than the champion.",
    "models": "List the models, promote one, or roll back to the previous one; servers follow without a restart.",
    "infer": "Score the newest rows of a feature file with a model.",
    "serve": "Serve a model over HTTP: the named or promoted one, otherwise the one that ships, as `volspike up` does.",
    "load-test": "Send many prediction requests to a running server and report how long the answers took.",
    "gaps": "List lost data: when, which products, why, and how many messages if that is known.",
    "compact": "Convert finished hours of recorded NDJSON into Parquet; the NDJSON is deleted after verification.",
    "convert": "Convert tapes between NDJSON and Parquet; every column of every tick survives.",
    "import": "Import trades and quotes from files of exchanges and other programs as tapes.",
    "history": "Download months of public trades into tapes; run it again to continue or to add the days since.",
    "backfill": "Download past trades of Coinbase, Binance (spot) or Kraken into tapes.",
    "simulate": "Simulate a market as a tape or as an exchange to connect to: for trials, never as evidence.",
    "demo": "Replay a tape, train on it, serve the random forest, and print one prediction.",
    "topics": "Create the pipeline's Kafka topics, or list the topics of a cluster.",
    "replay-to-kafka": "Replay recorded tapes into a Kafka topic, line for line, keyed by product.",
    "consume-check": "Read a Kafka topic from its beginning until enough messages arrive; status 3 if they do not.",
    "featurize": "Turn ticks in Kafka into feature rows, exactly once; start up to one worker per partition.",
    "predict-stream": "Score feature rows in Kafka, exactly once; alerts follow once predictions are committed.",
    "doctor": "Check an installation: every finding with its severity and what to do. Nothing is changed.",
}
"""Every subcommand with the first sentence of its help, in the order of the help page."""

INTERRUPTED: Final = 130
_Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


class Command(TyperCommand):
    """A command whose list options take their values as ``--windows 30 60 300`` or one by one, in either spelling.

    Users of the earlier system write ``--add_labels`` for ``--add-labels``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrites the arguments into typer's form, then parses them."""
        several = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        return list(super().parse_args(ctx, list(spelled_out(args, several))))


class CommandGroup(TyperGroup):
    """Lists all commands without importing them; a command's module is imported when the command runs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # name and summary are enough for the help page and for suggestions
        self.commands = {name: TyperCommand(name, help=summary) for name, summary in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run, with its module imported, and the remaining arguments."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found if name is None else load_command(name), rest


@cache
def load_command(name: str) -> Any:
    """The command of that name with all its parameters; imports its module."""
    module_name = name.replace("-", "_") + ("_" if iskeyword(name) else "")
    module = import_module(f"volspike.cli.{module_name}")
    single = typer.Typer(add_completion=False)
    settings = {"help_option_names": ["-h", "--help"]}
    single.command(name, cls=Command, epilog=module.EXAMPLES, context_settings=settings)(with_quiet(module.run))
    return typer.main.get_command(single)


def with_quiet(run: Callable[..., Any]) -> Callable[..., Any]:
    """``run`` with the option ``--quiet``. Progress is also off if LOG_LEVEL hides events of level INFO."""

    @wraps(run)
    def quiet_run(*, quiet: bool, **options: Any) -> Any:
        from volspike.cli.screen import progress_console

        level = logging.getLevelNamesMapping().get(os.environ.get("LOG_LEVEL", "INFO").upper(), logging.INFO)
        progress_console.quiet = quiet or level > logging.INFO
        return run(**options)

    known = inspect.signature(run, eval_str=True)
    option = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Quiet)
    quiet_run.__signature__ = known.replace(parameters=[*known.parameters.values(), option])  # type: ignore[attr-defined]
    quiet_run.__annotations__ = run.__annotations__ | {"quiet": _Quiet}
    return quiet_run


def spelled_out(args: list[str], several: set[str]) -> Iterator[str]:
    """``--a_b 1 2`` → ``--a-b 1 --a-b 2`` for the options named in ``several``.

    >>> list(spelled_out(["--windows", "30", "60", "--out", "f"], {"--windows"}))
    ['--windows', '30', '--windows', '60', '--out', 'f']
    """
    repeated, fresh = "", False
    for position, arg in enumerate(args):
        if arg == "--":
            yield from args[position:]
            return
        if arg.startswith("-") and not _is_number(arg):
            name, equals, value = arg.partition("=")
            name = name.replace("_", "-")
            repeated, fresh = (name, True) if name in several and not equals else ("", False)
            yield name + equals + value
        else:
            if repeated and not fresh:
                yield repeated
            fresh = False
            yield arg


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


app = typer.Typer(
    cls=CommandGroup,
    name="volspike",
    help="Forecasts how likely a volatility spike is within the next 60 seconds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 success, 1 `doctor` found a problem or `alert-test` failed, 2 wrong usage, 3 bad data, "
    "4 model and data do not match, or Kafka fails.",
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"volspike {volspike.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


# typer does not export the base class of the errors that it raises for wrong arguments
_UsageMistake: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Runs the command line of this process and exits with the status of its outcome."""
    print_any_text()
    try:
        status = app(standalone_mode=False) or 0
        if status == INTERRUPTED:  # typer returns it for Ctrl-C without a message
            _print_error("stopped")
        sys.exit(status)
    except VolspikeError as error:
        _print_error(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_status)
    except _UsageMistake as error:
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        if message:  # empty without a subcommand: the help page has been printed already
            _print_error(f"usage: {message}; see `volspike {_subcommand()}--help`")
        sys.exit(2)
    except typer.Abort as end:
        # typer makes one of an EOFError, whose message names the file that ended too early
        raise end.__cause__ or end  # noqa: B904
    except BrokenPipeError:
        # the reader of our output has closed the pipe; Python would print a second complaint at exit
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        # errors with a number come from the machine (disk full, no permission); Arrow reports damaged files without one
        place = error.filename2 or error.filename
        _print_error(f"{type(error).__name__}: {f'{place}: ' if place else ''}{error.strerror or error}")
        sys.exit(3 if error.errno is None else 2)


def print_any_text() -> None:
    """Makes standard output write characters that its encoding lacks as ``\\u2192``, instead of failing with them.

    A command must not fail after its work is done because a terminal or a pipe has another encoding.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _subcommand() -> str:
    named = sys.argv[1] if len(sys.argv) > 1 else ""
    return f"{named} " if named in COMMANDS else ""


def _print_error(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)
