"""A market at many times its speed with everything going wrong: ``python -m tests_system.soak [--write docs/soak.md]``.

The exchange loses, repeats, reorders and breaks frames, is silent, closes connections and goes away; the disk takes no
more; the receiver of alerts refuses. A real Prometheus watches with the alerts that are shipped, each hastened to two
seconds. What is simulated here is the market and the faults; the processes, sockets, files and figures are real.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from tests.doctor.servers import open_exchange, open_site
from tests.streams.brokers.ports import free_ports

from tests_system.processes import Server
from tests_system.watching import Prometheus, shipped_configuration, until
from volspike.feeds.simulation.faults import Faults
from volspike.market import SECOND_NS
from volspike.models import METADATA_FILE, SIMULATED_MODEL

SPEED: Final = 60.0
NERVOUS: Final = 0.03
"""Low enough for an alert every few minutes of market, so that a receiver who refuses is soon noticed."""

PAIRS: Final = ("BTC-USD", "ETH-USD")
FAULTS: Final = Faults(
    drop=0.001,
    duplicate=0.002,
    reorder=0.002,
    skip=0.0005,
    malformed=0.002,
    unknown=0.002,
    silence_every_s=600.0,
    silence_s=15.0,
    close_every_s=900.0,
    close_codes=(1001, 1006, 0),
    snapshot_every_s=1200.0,
)
"""Seconds are the market's: at 60 times its speed a connection lasts for a quarter of a minute."""

EXPECTED: Final = frozenset({"FeedDown", "DataNotWhole", "NotRecording", "AlertsNotDelivered", "ServiceUnavailable"})
ERRORS: Final = frozenset({"predictions_not_kept"})
"""What a full disk makes of the file of outcomes; no other event of level error may be logged."""
STALE: Final = "FeaturesStale"
"""Needs an exchange that is away for longer than a minute; a short soak leaves it out."""

CLEAR_MB: Final = 2.0
"""A noise above so many MB a minute tells nothing."""

PATIENCE_S: Final = 45.0
HASTY_S: Final = 2


@dataclass(slots=True)
class Soaked:
    """What came of it. Memory is resident, in MB, a sample a second at ``seconds`` since the start."""

    market_s: float = 0.0
    wall_s: float = 0.0
    status: int = -1
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    samples_of_market: int = 0
    fired: set[str] = field(default_factory=set)
    metrics: dict[str, float] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)

    def count(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(value for key, value in self.metrics.items() if key.partition("{")[0] == name)

    @property
    def pace(self) -> float:
        """Market seconds a second; a machine that is too slow for 60 runs late, not thinner."""
        return self.market_s / self.seconds[self.samples_of_market - 1]

    def slope(self) -> tuple[float, float]:
        """MB a minute over the second half of the market's time, by least squares, and twice the standard error.

        The error takes neighbouring samples for what they are, not independent: it is widened by their correlation
        (first order; the effective number of samples is n (1 - r) / (1 + r)).
        """
        end = self.samples_of_market
        x, y = np.array(self.seconds[end // 2 : end]) / 60.0, np.array(self.memory[end // 2 : end])
        slope, level = np.polyfit(x, y, 1)
        rest = y - (slope * x + level)
        spread = float(np.sum((x - x.mean()) ** 2))
        error = float(np.sqrt(np.sum(rest**2) / max(len(x) - 2, 1) / spread))
        power = float(np.sum(rest**2))
        tie = min(max(float(np.sum(rest[1:] * rest[:-1])) / power, 0.0), 0.98) if power > 0.0 else 0.0
        return float(slope), 2.0 * error * float(np.sqrt((1 + tie) / (1 - tie)))


def soak(folder: Path, *, market_s: float, away_s: float) -> Soaked:
    """``market_s`` seconds of market with faults on and a disk that is full, then an exchange away for ``away_s``."""
    told = Soaked()
    (exchange_port, port) = free_ports(2)
    settings: dict[str, Any] = {
        "products": PAIRS, "speed": SPEED, "port": exchange_port, "head_start_s": 420, "subscribes": 3,
        "faults": FAULTS,
    }  # fmt: skip
    began = time.monotonic()
    (folder / "watched").mkdir()
    configuration = shipped_configuration(folder / "watched", {"api": f"127.0.0.1:{port}"}, _hasten)
    with ExitStack() as ends:
        prometheus = Prometheus(configuration)
        ends.callback(prometheus.close)
        receiver = ends.enter_context(open_site({}))
        with open_exchange(**settings) as exchange:
            url, first = exchange.url(), time.time_ns()
            server = Server(
                folder,
                *("--pair", *PAIRS, "--port", port, "--model", _nervous(folder)),
                command="up",
                COINBASE_WS_URL=url,
                ALERT_URLS=receiver.replace("http://", "json://"),
            )
            ends.callback(server.close)
            reading = server.keep_reading()
            ends.callback(reading.join, 20)
            ends.callback(server.kill)
            with _watched(server, prometheus, told, began):
                _through(server, prometheus, told, market_s)
            told.samples_of_market = len(told.seconds)
            told.market_s = (exchange.now - first) / SECOND_NS
        _away(_Live(server, prometheus, reading), settings, told, away_s, began)
    told.wall_s = time.monotonic() - began
    return told


def _nervous(folder: Path) -> Path:
    """The shipped model with a threshold at which a simulated market makes many alerts."""
    model = folder / "model"
    shutil.copytree(SIMULATED_MODEL, model, ignore=shutil.ignore_patterns("__*"))
    facts = msgspec.json.decode((model / METADATA_FILE).read_bytes())
    facts |= {"thresholds": {"nervous": NERVOUS}, "served_threshold": "nervous"}
    (model / METADATA_FILE).write_bytes(msgspec.json.encode(facts))
    return model


@dataclass(frozen=True, slots=True)
class _Live:
    server: Server
    prometheus: Prometheus
    reading: threading.Thread


def _through(server: Server, prometheus: Prometheus, told: Soaked, market_s: float) -> None:
    """The market's time, in the middle of which no file may grow."""
    wall_s = market_s / SPEED
    time.sleep(wall_s * 0.4)
    with _full_disk(server.pid):
        assert until(lambda: "NotRecording" in prometheus.firing(), PATIENCE_S), "a full disk was not noticed"
    assert until(lambda: server.metrics()["tape_recording"] == 1.0, PATIENCE_S), "recording did not go on"
    time.sleep(wall_s * 0.6)


def _away(live: _Live, settings: dict[str, Any], told: Soaked, away_s: float, began: float) -> None:
    """The exchange is gone for a while, comes back, and is heard again; then the server is stopped."""
    server, prometheus = live.server, live.prometheus
    wanted = {"FeedDown"} | ({STALE} if away_s > 60 else set())
    with _watched(server, prometheus, told, began):
        assert until(lambda: wanted <= told.fired, away_s + PATIENCE_S), f"{wanted - told.fired} did not fire"
        before = server.metrics()
        with open_exchange(**{**settings, "head_start_s": 0}):
            name = "feed_frames_total"
            assert until(lambda: server.metrics()[name] > before[name] + 50, PATIENCE_S), (
                "the exchange is not heard again"
            )
            assert until(lambda: "AlertsNotDelivered" in told.fired, PATIENCE_S), "a refusing receiver was not noticed"
            told.metrics = server.metrics()
    told.status = server.end()
    live.reading.join(20)
    told.errors = {str(event["event"]) for event in server.events if event.get("level") in {"error", "critical"}}
    assert until(lambda: "ServiceUnavailable" in prometheus.firing(), PATIENCE_S), "a stopped server was not noticed"
    told.fired.add("ServiceUnavailable")


@contextmanager
def _watched(server: Server, prometheus: Prometheus, told: Soaked, began: float) -> Iterator[None]:
    """Memory and firing alerts, looked at every second beside the block."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            told.seconds.append(time.monotonic() - began)
            told.memory.append(_resident_mb(server.pid))
            told.fired |= prometheus.firing()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _full_disk(pid: int) -> Iterator[None]:
    """No file of the process may grow beyond a few bytes, as on a disk that is full; root is told so, too."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _hasten(rule: dict[str, Any]) -> None:
    if "alert" in rule:
        rule["for"] = f"{HASTY_S}s"


def page(told: Soaked) -> str:
    """The result as a page."""
    slope, noise = told.slope()
    third = len(told.memory) // 3
    rows = [
        ("market (SIMULATED)", f"{told.market_s / 60:.0f} min before the outage, {told.pace:.0f} times its speed"),
        ("elapsed", f"{told.wall_s:.0f} s, on {platform.machine()} with {os.cpu_count()} processors"),
        ("exit", f"status {told.status}; errors logged: {', '.join(sorted(told.errors)) or 'none'}"),
        ("frames, ticks", f"{told.count('feed_frames_total'):,.0f}, {told.count('feed_ticks_total'):,.0f}"),
        ("feature rows", f"{told.count('feature_rows_total'):,.0f}"),
        ("malformed frames", f"{told.count('feed_malformed_total'):,.0f}"),
        ("gaps in the ledger", f"{told.count('feed_gaps_total'):,.0f}"),
        ("messages lost, by sequence number", f"{told.count('feed_lost_messages_total'):,.0f}"),
        ("reconnects", f"{told.count('feed_reconnects_total'):,.0f}"),
        ("ticks not recorded (full disk)", f"{told.count('tape_unrecorded_ticks_total'):,.0f}"),
        ("predictions and outcomes not stored (full disk)", f"{told.count('outcomes_lost_total'):,.0f}"),
        ("alert episodes", f"{told.count('alert_episodes_total'):,.0f}"),
        ("memory, first third", f"{np.mean(told.memory[:third]):.1f} MB"),
        ("memory, last third", f"{np.mean(told.memory[-third:]):.1f} MB"),
        (
            "slope, second half of the simulated time",
            f"{slope:+.2f} MB a minute ± {noise:.2f} (twice the standard error)",
        ),
        ("growth within noise", _verdict(slope, noise)),
        ("alerts that fired", ", ".join(sorted(told.fired))),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        "<!-- generated by `make soak`; do not edit -->\n\n# Soak test\n\n"
        "`make soak` runs a day of a simulated market with faults through `volspike up`, at sixty times its speed.\n\n"
        "- The exchange loses, repeats, reorders and corrupts frames, sends unknown frames and 5 MB snapshots, is\n"
        "  silent, closes connections, and is down for more than a minute.\n"
        "- The disk is full for a while. The alert receiver refuses every message.\n\n"
        "A real Prometheus evaluates the shipped alerts with a waiting time of two seconds each; their thresholds are\n"
        "unchanged. Separate tests stop a broker and kill workers (`tests_system/kafka`).\n\n"
        f"| measurement | result |\n|---|---|\n{table}\n\n"
        "The live metrics cover the predictions of the last 24 hours, up to 200,000 rows; memory grows until that\n"
        "number is reached.\n"
    )


def _verdict(slope: float, noise: float) -> str:
    if slope > noise:
        return "no: memory still grew at the end"
    return "yes" if noise <= CLEAR_MB else "unknown: the noise is wide enough to hide a leak"


def main() -> None:
    """The whole of it; with --write its page, also of what falls short."""
    parser = argparse.ArgumentParser(description="Bad hours of a market.")
    parser.add_argument("--minutes", type=float, default=1440.0, help="of market")
    parser.add_argument("--write", type=Path, help="the page to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = soak(Path(folder), market_s=60.0 * given.minutes, away_s=75.0)
    text = page(told)
    print(text)  # noqa: T201  its voice
    missing = (EXPECTED | {STALE}) - told.fired
    slope, noise = told.slope()
    if given.write is not None:
        given.write.write_text(text)
    if missing or told.status != 0 or told.errors - ERRORS:
        raise SystemExit(f"failed: missing {missing}, status {told.status}, {told.errors}")
    if slope > noise:
        raise SystemExit(f"memory grew by {slope:.2f} MB a minute, which is more than the noise of {noise:.2f}")


if __name__ == "__main__":
    main()
