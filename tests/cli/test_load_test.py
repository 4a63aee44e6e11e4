"""``volspike load-test``: options that are refused before the first request."""

from __future__ import annotations

import pytest

from tests.cli.command_line import USAGE, Run, assert_refused


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--requests", "0"], ["--requests takes 1 to 10000000", "got 0"]),
        (["--concurrent", "1001"], ["--concurrent takes 1 to 1000"]),
        (["--rows", "-1"], ["--rows takes 1 to 10000"]),
        (["--rate", "0"], ["--rate must be above 0"]),
        (["--timeout", "inf"], ["--timeout must be above 0"]),
        (["--url", "localhost"], ["is not the URL of a server", "http://127.0.0.1:8000"]),
        (["--url", "http://127.0.0.1:1"], ["no server at 127.0.0.1:1", "volspike serve"]),
        (["--output", "nowhere/r.json"], ["folder nowhere does not exist"]),
        (["--api-key-file", "nowhere"], ["API key file nowhere"]),
    ],
)
def test_a_wrong_call_is_refused(arguments: list[str], told: list[str], volspike: Run) -> None:
    """What cannot be meant is one line, with what was given and what is wanted."""
    assert_refused(volspike("load-test", *arguments), USAGE, *told)
