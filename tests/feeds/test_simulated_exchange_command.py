"""``volspike simulate --port``: the simulated exchange as its own process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from websockets.asyncio.client import connect

from volspike.cli import main
from volspike.cli.screen import SIMULATED
from volspike.feeds.protocol import decode_any

SUBSCRIBE = {
    "coinbase": '{"type":"subscribe","product_ids":["ETH-USD"],"channel":"ticker"}',
    "coinbase-exchange": '{"type":"subscribe","product_ids":["ETH-USD"],"channels":["ticker"]}',
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(number: signal.Signals) -> None:
    """It prints SIMULATED and both urls, serves them, and ends with status 0 and its counts."""
    command = [sys.executable, "-m", "volspike", "simulate", "--port", "0", "--pair", "BTC-USD", "ETH-USD"]
    with subprocess.Popen([*command, "--unknown", "0.5"], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stdout.readline().strip() == SIMULATED
        urls = dict(process.stdout.readline().split() for _ in SUBSCRIBE)
        assert list(urls) == list(SUBSCRIBE)
        for protocol, url in urls.items():
            assert url.startswith("ws://127.0.0.1:")
            assert asyncio.run(_first_ticker(url, SUBSCRIBE[protocol])) == "ETH-USD"
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "to 2 connections, 0 lost; faults:" in rest


async def _first_ticker(url: str, message: str) -> str:
    async with connect(url) as client, asyncio.timeout(20):
        await client.send(message)
        while True:
            ticks = decode_any(await client.recv(), 0).ticks
            if ticks:
                return ticks[0].product_id


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", ["Missing option '--out'", "'--port'"]),
        ("--out a.ndjson --port 0", ["one of them"]),
        ("--port 70000", ["`$.port`"]),
        ("--port 0 --drop 2", ["`$.faults.drop`"]),
        ("--port 0 --drop 0.7 --skip 0.7", ["add up to 1.4"]),
        ("--port 0 --pair what?", ["names like BTC-USD", "what?"]),
        ("--port 0 --minutes 0", ["--minutes must be at least 1"]),
        ("--port 0 --start yesterday", ["--start", "'yesterday'"]),
        ("--port 0 --host 203.0.113.1", ["cannot listen on 203.0.113.1:0"]),
    ],
)
def test_invalid_options_are_refused(arguments: str, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the error, status 2, and nothing on standard output."""
    monkeypatch.setattr(sys, "argv", ["volspike", "simulate", *arguments.split()])
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert out.getvalue() == ""
    assert err.getvalue().count("\n") == 1
    assert [words for words in told if words not in err.getvalue()] == [], err.getvalue()
