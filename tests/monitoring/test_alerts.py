"""Alerts reach the reachable receivers; the others neither delay the pipeline nor leak a secret."""

from __future__ import annotations

import logging
import threading
import time

import msgspec
import pytest
import structlog
from tests.monitoring.listeners import hanging, listening, refusing

from volspike.market import Mode
from volspike.monitoring.alerts import Alert, AlertRouter

# Apprise's mail plugin imports a module that Python 3.13 no longer has
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

DEADLINE_S = 10.0


def alert(number: int = 0, *, is_open: bool = True, mode: Mode = Mode.LIVE, is_in_sample: bool = False) -> Alert:
    return Alert(
        id=f"episode-{number}",
        product="BTC-USD",
        is_open=is_open,
        time_ns=1_700_000_000 * 10**9,
        probability=0.731,
        threshold=0.6,
        price=97_123.45,
        mode=mode,
        is_in_sample=is_in_sample,
    )


class Fake:
    """A receiver that can be blocked."""

    address = "fake://here"

    def __init__(self, gate: threading.Event | None = None, failures: int = 0) -> None:
        self.gate, self.failures = gate, failures
        self.started = threading.Event()
        self.received: list[str] = []

    def send(self, title: str, body: str) -> bool:
        self.started.set()
        if self.gate is not None:
            self.gate.wait(DEADLINE_S)
        self.received.append(body)
        self.failures -= 1
        return self.failures < 0


def test_a_receiver_gets_the_message() -> None:
    """A receiver gets product, probability, threshold, price and time."""
    with listening(200) as server:
        router = AlertRouter([server.url])
        router.send(alert())
        assert router.close(DEADLINE_S)
    (message,) = server.received
    assert message["title"] == "BTC-USD: volatility spike likely"
    assert message["message"] == ("BTC-USD: probability 0.731, threshold 0.600, price 97,123.45, 2023-11-14T22:13:20Z")
    assert (router.deliveries[0].sent, router.deliveries[0].failures) == (1, 0)
    assert server.authorization[0] is not None


def test_a_simulated_market_is_named_so() -> None:
    """Title and body contain SIMULATED only for a simulated market."""
    for text in (alert(mode=Mode.SIMULATED).title, alert(is_open=False, mode=Mode.SIMULATED).body):
        assert "SIMULATED" in text
        assert "REPLAY" not in text
    assert "SIMULATED" not in alert().title + alert().body
    assert "peak probability 0.731" in alert(is_open=False).body
    unsure = msgspec.structs.replace(alert(), spike="at least 2 times the volatility", is_calibrated=False)
    assert "a spike is at least 2 times the volatility, UNCALIBRATED" in unsure.body
    assert "UNCALIBRATED" not in alert().body
    limited = msgspec.structs.replace(alert(), limitations=("NO EVIDENCE: stratified split",))
    assert "; NO EVIDENCE: stratified split" in limited.body


def test_a_failure_is_tried_again() -> None:
    """After one status 500 the same message is sent again."""
    with listening(500, 200) as server:
        router = AlertRouter([server.url], backoff_s=0.01)
        router.send(alert())
        assert router.close(DEADLINE_S)
    tally = router.deliveries[0]
    assert (len(server.received), tally.sent, tally.failures, tally.given_up) == (2, 1, 1, 0)


def test_dead_receivers_are_counted_and_hold_up_nobody(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deliveries to receivers that hang, refuse or respond with 500 are given up; the working one has its message.

    Neither our log nor that of any library, at any level, shows a part of an address but scheme and host.
    """
    caplog.set_level(logging.DEBUG)
    with listening(500) as broken, listening(200) as good, hanging() as stuck, structlog.testing.capture_logs() as logs:
        urls = [stuck, refusing(), broken.url, good.url]
        router = AlertRouter(urls, attempts=2, backoff_s=0.01, timeout_s=0.2)
        before = time.perf_counter()
        router.send(alert())
        assert time.perf_counter() - before < 0.1
        assert router.close(DEADLINE_S)
    assert [(t.sent, t.failures, t.given_up) for t in router.deliveries] == [(0, 2, 1)] * 3 + [(1, 0, 0)]
    assert sum(entry["event"] == "alert_undelivered" for entry in logs) == 3
    told = repr(router) + repr(router.deliveries) + repr(logs) + caplog.text + "".join(capsys.readouterr())
    assert "json://127.0.0.1" in told
    for secret in ("hunter2", "sesame", "watch"):
        assert secret not in told


class Raising(Fake):
    """A receiver that raises an error with a secret in its text at the first ``raises`` attempts."""

    def __init__(self, raises: int, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.raises, self.error = raises, error

    def send(self, title: str, body: str) -> bool:
        self.raises -= 1
        if self.raises >= 0:
            raise self.error("https://host/hunter2")
        return super().send(title, body)


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_receiver_that_raises_stops_no_delivery(error: type[BaseException]) -> None:
    """The others have each alert once; it has its own at the next attempt, and its secrets stay hidden."""
    bad, good = Raising(2, error), Fake()
    with structlog.testing.capture_logs() as logs:
        router = AlertRouter(receivers=[bad, good], backoff_s=0.01)
        router.send(alert(0))
        router.send(alert(1))
        assert router.close(DEADLINE_S)
    assert [(t.sent, t.failures, t.given_up) for t in router.deliveries] == [(2, 2, 0), (2, 0, 0)]
    assert [(task.faults, task.error) for task in router.tasks] == [(2, None), (0, None)]
    faults = [entry["error"] for entry in logs if entry["event"] == "background_fault"]
    assert faults == [f"fake://here: {error.__name__}"] * 2
    assert "hunter2" not in repr(logs)


def test_a_receiver_that_hangs_delays_no_other() -> None:
    """Every receiver has a thread of its own."""
    gate = threading.Event()
    stuck, good = Fake(gate), Fake()
    router = AlertRouter(receivers=[stuck, good])
    router.send(alert())
    assert stuck.started.wait(DEADLINE_S)
    assert good.started.wait(DEADLINE_S)
    gate.set()
    assert router.close(DEADLINE_S)


def test_putting_never_waits_and_the_oldest_go() -> None:
    """While a receiver hangs, alerts are queued up to the limit; then the oldest are dropped and counted."""
    gate = threading.Event()
    slow = Fake(gate)
    router = AlertRouter(receivers=[slow], queue_alerts=3)
    router.send(alert(0))
    assert slow.started.wait(DEADLINE_S)
    for number in range(1, 11):
        router.send(alert(number))
    assert router.dropped == 7
    gate.set()
    assert router.close(DEADLINE_S)
    assert (len(slow.received), router.deliveries[0].sent) == (4, 4)


def test_new_alerts_go_before_waiting_ones() -> None:
    """A retry does not delay the next alert."""
    dead, good = Fake(failures=1_000), Fake()
    router = AlertRouter(receivers=[dead, good], backoff_s=0.02)
    for number in range(5):
        router.send(alert(number))
    assert router.close(DEADLINE_S)
    assert (len(good.received), router.deliveries[0].failures, router.deliveries[0].given_up) == (5, 15, 5)


def test_waiting_retries_are_bounded() -> None:
    """The retries of an unreachable receiver are limited by the queue size."""
    dead = Fake(failures=1_000)
    router = AlertRouter(receivers=[dead], backoff_s=1_000.0, queue_alerts=4)
    for number in range(50):
        router.send(alert(number))
    assert not router.close(0.5)
    assert router.deliveries[0].given_up + router.dropped == 50


def test_closing_keeps_its_deadline() -> None:
    """A receiver that hangs does not delay the close; undelivered alerts are counted."""
    gate = threading.Event()
    slow = Fake(gate)
    router = AlertRouter(receivers=[slow])
    for number in range(3):
        router.send(alert(number))
    assert slow.started.wait(DEADLINE_S)
    before = time.perf_counter()
    assert not router.close(0.05)
    assert time.perf_counter() - before < 1.0
    assert router.dropped == 2
    gate.set()


@pytest.mark.parametrize("mode", [Mode.REPLAY, Mode.SIMULATED_REPLAY])
def test_a_replay_is_named_so(mode: Mode) -> None:
    """Title and body name a replay, a simulated one as both, and a time within the model's data."""
    replayed = alert(mode=mode, is_in_sample=True)
    for text in (replayed.title, replayed.body):
        assert "REPLAY" in text
        assert ("SIMULATED" in text) is mode.is_simulated
    assert "IN-SAMPLE" in replayed.body
    assert "IN-SAMPLE" not in alert(mode=mode).body
    assert "REPLAY" not in alert().title + alert().body


def test_without_receivers_alerts_go_to_the_log() -> None:
    """Without receivers each alert is logged with its fields, and there is no thread."""
    before = threading.active_count()
    with structlog.testing.capture_logs() as logs:
        router = AlertRouter()
        router.send(alert(mode=Mode.SIMULATED_REPLAY, is_in_sample=True))
        router.send(alert(is_open=False))
        assert threading.active_count() == before
        assert router.close()
    assert [entry["event"] for entry in logs] == ["alert_opened", "alert_closed"]
    assert logs[0]["product"] == "BTC-USD"
    assert (logs[0]["mode"], logs[0]["in_sample"], logs[1]["mode"]) == ("simulated replay", True, "live")
    assert (logs[0]["price"], logs[0]["simulated"], logs[0]["time"]) == (97_123.45, True, "2023-11-14T22:13:20Z")


def test_alerts_after_the_end_are_counted() -> None:
    """An alert that is sent after the close is dropped without an error."""
    router = AlertRouter(receivers=[Fake()])
    assert router.close(DEADLINE_S)
    router.send(alert())
    assert router.dropped == 1
