"""How a command line is read beyond what typer does: several values after one flag, underscores for dashes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand


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
