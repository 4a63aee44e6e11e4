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

from tests.feeds.venue_frames import requests, trades_of
from volspike.cli import main
from volspike.cli.screen import SIMULATED
from volspike.feeds.simulation.exchange import PROTOCOLS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(number: signal.Signals) -> None:
    """It prints SIMULATED and the urls of all protocols, serves them, and ends with status 0 and its counts."""
    command = [sys.executable, "-m", "volspike", "simulate", "--port", "0", "--pair", "BTC-USD", "ETH-USD"]
    with subprocess.Popen([*command, "--unknown", "0.5"], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stdout.readline().strip() == SIMULATED
        urls = dict(process.stdout.readline().split() for _ in PROTOCOLS)
        assert list(urls) == list(PROTOCOLS)
        for protocol, url in urls.items():
            assert url.startswith("ws://127.0.0.1:")
            assert asyncio.run(_first_trade(protocol, url)) == "ETH-USD"
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "to 6 connections, 0 lost; faults:" in rest


async def _first_trade(protocol: str, url: str) -> str:
    async with connect(url) as client, asyncio.timeout(20):
        for message in requests(protocol, ("ETH-USD",)):
            await client.send(message)
        while True:
            trades = trades_of(protocol, str(await client.recv()))
            if trades:
                return trades[0].product


def test_a_stopped_command_announces_its_end() -> None:
    """With a notice, it sends ``serverShutdown`` first, ends some time later, and at once after a second signal."""
    command = [sys.executable, "-m", "volspike", "simulate", "--port", "0", "--shutdown-notice", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        process.stdout.readline()
        urls = dict(process.stdout.readline().split() for _ in PROTOCOLS)

        async def announced() -> str:
            async with connect(urls["binance"]) as client, asyncio.timeout(20):
                await client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
                await client.recv()
                process.send_signal(signal.SIGTERM)
                notice = str(await client.recv())
                process.send_signal(signal.SIGTERM)
                return notice

        assert "serverShutdown" in asyncio.run(announced())
        assert "1 shutdown" in process.stdout.read()
    assert process.returncode == 0


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
