"""How a command line is read beyond what typer does: several values after one flag, underscores for dashes.

All subcommands under one name, and how an error ends: one line, and an exit status that says whose fault it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import volspike
from volspike.cli import (
    analyze,
    audit,
    backfill,
    compact,
    consolidate,
    consume_check,
    convert,
    demo,
    doctor,
    drift,
    featurize,
    gaps,
    infer,
    ingest,
    label,
    load_test,
    models,
    predict_stream,
    replay,
    replay_to_kafka,
    report,
    retrain,
    serve,
    simulate,
    topics,
    train,
    up,
)
from volspike.errors import VolspikeError


class Command(TyperCommand):
    """A command whose list options take their values as ``--windows 30 60 300`` or one by one, in either spelling.

    The earlier system's users write ``--add_labels`` where volspike writes ``--add-labels``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrites the arguments into what typer understands, then parses them."""
        several = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        return list(super().parse_args(ctx, list(spelled_out(args, several))))


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
    name="volspike",
    help="Tells how likely a market is to be in a volatility spike within the next 60 seconds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 well, 1 `doctor` found something bad, 2 wrong usage, 3 bad data, "
    "4 model and data do not fit, or Kafka fails.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"volspike {volspike.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    del version


COMMANDS = (
    up,
    ingest,
    replay,
    label,
    consolidate,
    train,
    audit,
    analyze,
    report,
    drift,
    retrain,
    models,
    infer,
    serve,
    load_test,
    gaps,
    compact,
    convert,
    backfill,
    simulate,
    demo,
    topics,
    replay_to_kafka,
    consume_check,
    featurize,
    predict_stream,
    doctor,
)

for module in COMMANDS:
    app.command(module.__name__.rpartition(".")[2].replace("_", "-"), cls=Command, epilog=module.EXAMPLES)(module.run)

# typer does not export the root of the errors that it raises for a wrong call
_CallError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


INTERRUPTED = 130


def main() -> None:
    """Runs the command line of this process and ends it with the status that its outcome has."""
    try:
        status = app(standalone_mode=False) or 0
        if status == INTERRUPTED:  # which typer returns for Ctrl-C, without a word
            _say("stopped")
        sys.exit(status)
    except VolspikeError as error:
        _say(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_status)
    except _CallError as error:
        told = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        if told:  # without a subcommand the help has been shown, and that is all there is to say
            _say(f"usage: {told}; see `volspike {_subcommand()}--help`")
        sys.exit(2)
    except typer.Abort as end:
        # typer makes one of an EOFError, and nobody would learn which file ended too early
        raise end.__cause__ or end  # noqa: B904
    except BrokenPipeError:
        # whoever read our output has seen enough; Python would complain once more when it closes the pipe
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        # what has a number is of the machine (a full disk, a folder in the way); Arrow tells damaged bytes without one
        place = error.filename2 or error.filename
        _say(f"{type(error).__name__}: {f'{place}: ' if place else ''}{error.strerror or error}")
        sys.exit(3 if error.errno is None else 2)


def _subcommand() -> str:
    named = sys.argv[1] if len(sys.argv) > 1 else ""
    return f"{named} " if named in {command.name for command in app.registered_commands} else ""


def _say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)
