"""The command ``volspike``: one file per subcommand, and the only place that prints."""

from volspike.cli.app import main

__all__ = ["main"]
