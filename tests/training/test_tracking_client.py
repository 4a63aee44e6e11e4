"""The client leaves the environment as it was, and tells what went wrong in few words."""

from __future__ import annotations

import os

from volspike.training.mlflow import root_cause, short_timeout

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def test_patience_is_for_a_while() -> None:
    """Inside, one try of a few seconds; afterwards the variable is what it was, or is not there."""
    before = dict(os.environ)
    with short_timeout():
        assert (os.environ[TIMEOUT], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) == ("5", "0")
    assert dict(os.environ) == before


def test_the_reason_is_what_came_first() -> None:
    """Of errors that were raised one upon another, the first tells; in one line, cut where it is long, masked."""
    first = ValueError("no\n  way to http://ada:geheim@host " + "x" * 300)
    second, third = RuntimeError("second"), RuntimeError("third")
    second.__context__, third.__cause__ = first, second
    told = root_cause(third)
    assert told.startswith("no way to http://***@host xxx")
    assert told.endswith("x…")
    assert len(told) == 200
    assert root_cause(TimeoutError()) == "TimeoutError"
    assert root_cause(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
