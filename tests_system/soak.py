"""Soak test: a simulated market with faults, at many times its speed; ``python -m tests_system.soak``.

The exchange loses, repeats, reorders and corrupts frames, is silent, closes connections and goes down; the disk is
full for a while; the alert receiver refuses every message. A real Prometheus evaluates the shipped alerts, each with a
waiting time of two seconds. Market and faults are simulated; processes, sockets, files and measurements are real.
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
from tests_system.prometheus import Prometheus, becomes_true, write_configuration
from volspike.feeds.simulation.faults import Faults
from volspike.market import SECOND_NS
from volspike.models import METADATA_FILE, SIMULATED_MODEL

SPEED: Final = 60.0
LOW_THRESHOLD: Final = 0.03
"""An alert threshold that gives an alert every few market minutes, so that a refusing receiver is noticed soon."""

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
"""In market seconds: at 60 times its speed a connection lasts 15 s."""

EXPECTED: Final = frozenset({"FeedDown", "DataNotWhole", "NotRecording", "AlertsNotDelivered", "ServiceUnavailable"})
ERRORS: Final = frozenset({"predictions_not_stored"})
"""The event of level error that a full disk causes for stored predictions; no other may be logged."""
STALE: Final = "FeaturesStale"
"""Needs an exchange that is down for more than a minute; a short soak test excludes it."""

MAX_NOISE_MB: Final = 2.0
"""With a noise above so many MB a minute, a memory leak could not be seen."""

PATIENCE_S: Final = 45.0
ALERT_AFTER_S: Final = 2


@dataclass(slots=True)
class SoakResult:
    """Measurements of a soak test. ``memory`` is the resident memory in MB at ``seconds`` since the start."""

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
    def speed(self) -> float:
        """Market seconds per second; on a machine that is too slow for 60 the market lags, but sends every tick."""
        return self.market_s / self.seconds[self.samples_of_market - 1]

    def slope(self) -> tuple[float, float]:
        """Growth in MB a minute in the second half of the simulated time (least squares), and twice its standard error.

        The error allows for first-order autocorrelation r of the residuals: the effective number of samples is
        n (1 - r) / (1 + r).
        """
        end = self.samples_of_market
        x, y = np.array(self.seconds[end // 2 : end]) / 60.0, np.array(self.memory[end // 2 : end])
        slope, level = np.polyfit(x, y, 1)
        residuals = y - (slope * x + level)
        spread = float(np.sum((x - x.mean()) ** 2))
        error = float(np.sqrt(np.sum(residuals**2) / max(len(x) - 2, 1) / spread))
        power = float(np.sum(residuals**2))
        r = min(max(float(np.sum(residuals[1:] * residuals[:-1])) / power, 0.0), 0.98) if power > 0.0 else 0.0
        return float(slope), 2.0 * error * float(np.sqrt((1 + r) / (1 - r)))


def soak(folder: Path, *, market_s: float, down_s: float) -> SoakResult:
    """Runs ``market_s`` market seconds with faults and a full disk, then takes the exchange down for ``down_s``."""
    result = SoakResult()
    (exchange_port, port) = free_ports(2)
    settings: dict[str, Any] = {
        "products": PAIRS, "speed": SPEED, "port": exchange_port, "head_start_s": 420, "subscribes": 3,
        "faults": FAULTS,
    }  # fmt: skip
    began = time.monotonic()
    (folder / "prometheus").mkdir()
    configuration = write_configuration(folder / "prometheus", {"api": f"127.0.0.1:{port}"}, _shorten_waiting_time)
    with ExitStack() as ends:
        prometheus = Prometheus(configuration)
        ends.callback(prometheus.close)
        receiver = ends.enter_context(open_site({}))
        with open_exchange(**settings) as exchange:
            url, first = exchange.url(), time.time_ns()
            server = Server(
                folder,
                *("--pair", *PAIRS, "--port", port, "--model", _copy_model(folder)),
                command="up",
                COINBASE_WS_URL=url,
                ALERT_URLS=receiver.replace("http://", "json://"),
            )
            ends.callback(server.close)
            reading = server.read_in_background()
            ends.callback(reading.join, 20)
            ends.callback(server.kill)
            with _sampling(server, prometheus, result, began):
                _run_market(server, prometheus, market_s)
            result.samples_of_market = len(result.seconds)
            result.market_s = (exchange.now - first) / SECOND_NS
        _run_outage(_Live(server, prometheus, reading), settings, result, down_s, began)
    result.wall_s = time.monotonic() - began
    return result


def _copy_model(folder: Path) -> Path:
    """A copy of the shipped model with an alert threshold that a simulated market reaches often."""
    model = folder / "model"
    shutil.copytree(SIMULATED_MODEL, model, ignore=shutil.ignore_patterns("__*"))
    facts = msgspec.json.decode((model / METADATA_FILE).read_bytes())
    facts |= {"thresholds": {"low": LOW_THRESHOLD}, "served_threshold": "low", "adaptation": None}
    (model / METADATA_FILE).write_bytes(msgspec.json.encode(facts))
    return model


@dataclass(frozen=True, slots=True)
class _Live:
    server: Server
    prometheus: Prometheus
    log_reader: threading.Thread


def _run_market(server: Server, prometheus: Prometheus, market_s: float) -> None:
    """Waits until ``market_s`` market seconds are over; the disk is full in the middle of them."""
    wall_s = market_s / SPEED
    time.sleep(wall_s * 0.4)
    with _full_disk(server.pid):
        assert becomes_true(lambda: "NotRecording" in prometheus.firing(), PATIENCE_S), "no alert for the full disk"
    assert becomes_true(lambda: server.metrics()["tape_recording"] == 1.0, PATIENCE_S), "recording did not resume"
    time.sleep(wall_s * 0.6)


def _run_outage(live: _Live, settings: dict[str, Any], result: SoakResult, down_s: float, began: float) -> None:
    """Takes the exchange down, brings it back, waits for new frames and alerts; then stops the server."""
    server, prometheus = live.server, live.prometheus
    wanted = {"FeedDown"} | ({STALE} if down_s > 60 else set())
    with _sampling(server, prometheus, result, began):
        assert becomes_true(lambda: wanted <= result.fired, down_s + PATIENCE_S), wanted - result.fired
        before = server.metrics()
        with open_exchange(**{**settings, "head_start_s": 0}):
            name = "feed_frames_total"
            assert becomes_true(lambda: server.metrics()[name] > before[name] + 50, PATIENCE_S), (
                "no frames arrived after the outage"
            )
            assert becomes_true(lambda: "AlertsNotDelivered" in result.fired, PATIENCE_S), "no alert for the receiver"
            result.metrics = server.metrics()
    result.status = server.terminate()
    live.log_reader.join(20)
    result.errors = {str(event["event"]) for event in server.events if event.get("level") in {"error", "critical"}}
    assert becomes_true(lambda: "ServiceUnavailable" in prometheus.firing(), PATIENCE_S), "no alert for the stop"
    result.fired.add("ServiceUnavailable")


@contextmanager
def _sampling(server: Server, prometheus: Prometheus, result: SoakResult, began: float) -> Iterator[None]:
    """Samples memory and firing alerts every second during the block."""
    over = threading.Event()

    def sample() -> None:
        while not over.wait(1.0):
            result.seconds.append(time.monotonic() - began)
            result.memory.append(_resident_mb(server.pid))
            result.fired |= prometheus.firing()

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _full_disk(pid: int) -> Iterator[None]:
    """Limits the files of the process to a few bytes during the block, as on a full disk; this affects root as well."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _shorten_waiting_time(rule: dict[str, Any]) -> None:
    if "alert" in rule:
        rule["for"] = f"{ALERT_AFTER_S}s"


def page(result: SoakResult) -> str:
    """The result as a Markdown page."""
    slope, noise = result.slope()
    third = len(result.memory) // 3
    rows = [
        ("market (SIMULATED)", f"{result.market_s / 60:.0f} min before the outage, {result.speed:.0f} times its speed"),
        ("elapsed", f"{result.wall_s:.0f} s, on {platform.machine()} with {os.cpu_count()} processors"),
        ("exit", f"status {result.status}; errors logged: {', '.join(sorted(result.errors)) or 'none'}"),
        ("frames, ticks", f"{result.count('feed_frames_total'):,.0f}, {result.count('feed_ticks_total'):,.0f}"),
        ("feature rows", f"{result.count('feature_rows_total'):,.0f}"),
        ("malformed frames", f"{result.count('feed_malformed_total'):,.0f}"),
        ("gaps in the ledger", f"{result.count('feed_gaps_total'):,.0f}"),
        ("messages lost, by sequence number", f"{result.count('feed_lost_messages_total'):,.0f}"),
        ("reconnects", f"{result.count('feed_reconnects_total'):,.0f}"),
        ("ticks not recorded (full disk)", f"{result.count('tape_unrecorded_ticks_total'):,.0f}"),
        ("predictions and outcomes not stored (full disk)", f"{result.count('outcomes_lost_total'):,.0f}"),
        ("alert episodes", f"{result.count('alert_episodes_total'):,.0f}"),
        ("memory, first third", f"{np.mean(result.memory[:third]):.1f} MB"),
        ("memory, last third", f"{np.mean(result.memory[-third:]):.1f} MB"),
        (
            "slope, second half of the simulated time",
            f"{slope:+.2f} MB a minute ± {noise:.2f} (twice the standard error)",
        ),
        ("growth within noise", _growth_verdict(slope, noise)),
        ("alerts that fired", ", ".join(sorted(result.fired))),
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


def _growth_verdict(slope: float, noise: float) -> str:
    if slope > noise:
        return "no: memory still grew at the end"
    return "yes" if noise <= MAX_NOISE_MB else "unknown: the noise is wide enough to hide a leak"


def main() -> None:
    """Runs the soak test, prints its page, and fails if an alert is missing, an error was logged or memory grew."""
    parser = argparse.ArgumentParser(description="Soak test with a simulated market.")
    parser.add_argument("--minutes", type=float, default=1440.0, help="simulated minutes")
    parser.add_argument("--write", type=Path, help="write the page to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), market_s=60.0 * options.minutes, down_s=75.0)
    text = page(result)
    print(text)  # noqa: T201  a command
    missing = (EXPECTED | {STALE}) - result.fired
    slope, noise = result.slope()
    if options.write is not None:
        options.write.write_text(text)
    if missing or result.status != 0 or result.errors - ERRORS:
        raise SystemExit(f"failed: alerts that did not fire: {missing}; exit status {result.status}, {result.errors}")
    if slope > noise:
        raise SystemExit(f"memory grew by {slope:.2f} MB a minute, which is more than the noise of {noise:.2f}")


if __name__ == "__main__":
    main()
