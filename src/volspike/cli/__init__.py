"""The command ``volspike``: one module per subcommand. No other package prints."""

from volspike.cli.app import main

__all__ = ["main"]
