"""Quiet hours and snoozes: what is held back, until when, and what survives a restart."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from zoneinfo import ZoneInfo

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import UsageError
from volspike.market import SECOND_NS, Mode
from volspike.monitoring.alerts import Alert, AlertRouter
from volspike.monitoring.quiet import QuietHours, QuietSummary, SendingRules, Snooze, Suppression

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = "22:00-07:00 Europe/Berlin"
DEADLINE_S = 10.0


def second(text: str) -> int:
    """The Unix second of an ISO time."""
    return int(datetime.fromisoformat(text).timestamp())


def is_quiet(window: str, text: str) -> bool:
    return QuietHours.parse(window).end_at(second(text)) is not None


@pytest.mark.parametrize(
    ("time", "quiet"),
    [
        ("2026-01-14T21:59:59+01:00", False),
        ("2026-01-14T22:00:00+01:00", True),
        ("2026-01-14T23:59:59+01:00", True),
        ("2026-01-15T00:00:00+01:00", True),
        ("2026-01-15T06:59:59+01:00", True),
        ("2026-01-15T07:00:00+01:00", False),
        ("2026-07-15T22:00:00+02:00", True),
        ("2026-07-15T21:59:59+02:00", False),
        ("2026-07-16T07:00:00+02:00", False),
    ],
)
def test_a_night_is_quiet_from_its_start_to_before_its_end(time: str, quiet: bool) -> None:
    """The window crosses midnight and follows the local clock in winter and in summer."""
    assert is_quiet(NIGHT, time) is quiet


@pytest.mark.parametrize(
    ("time", "quiet"),
    [
        ("2026-01-16T23:00:00+01:00", True),  # a Friday
        ("2026-01-17T06:59:59+01:00", True),
        ("2026-01-17T22:00:00+01:00", False),  # a Saturday
        ("2026-01-18T23:00:00+01:00", False),
        ("2026-01-19T06:00:00+01:00", False),  # Monday, in the night that would have begun on Sunday
        ("2026-01-19T22:00:00+01:00", True),
    ],
)
def test_weekdays_are_those_on_which_the_window_begins(time: str, quiet: bool) -> None:
    """The night from Friday to Saturday belongs to Friday, the one from Sunday to Monday to Sunday."""
    assert is_quiet(f"mon-fri {NIGHT}", time) is quiet


def test_the_longest_night_has_the_repeated_hour_once() -> None:
    """In the night in which the clock is set back, the window lasts ten hours and has no break."""
    window = QuietHours.parse(NIGHT)
    start, end = second("2026-10-24T22:00:00+02:00"), second("2026-10-25T07:00:00+01:00")
    assert end - start == 10 * 3600
    assert {window.end_at(at) for at in range(start, end, 60)} == {end}
    assert window.end_at(start - 1) is None
    assert window.end_at(end) is None


def test_the_shortest_night_lasts_eight_hours() -> None:
    """In the night in which the clock is set forward, the window ends at its local time."""
    window = QuietHours.parse(NIGHT)
    start, end = second("2026-03-28T22:00:00+01:00"), second("2026-03-29T07:00:00+02:00")
    assert end - start == 8 * 3600
    assert (window.end_at(start), window.end_at(end - 1), window.end_at(end)) == (end, end, None)


def test_an_end_in_the_repeated_hour_is_its_second_pass() -> None:
    """A window that ends at 02:30 where that time occurs twice ends once, at the second."""
    window = QuietHours.parse("01:00-02:30 Europe/Berlin")
    start, end = second("2026-10-25T01:00:00+02:00"), second("2026-10-25T02:30:00+01:00")
    assert [window.end_at(at) for at in (start - 1, start, start + 2 * 3600, end - 1, end)] == [
        None,
        end,
        end,
        end,
        None,
    ]
    later = QuietHours.parse("02:30-04:00 Europe/Berlin")
    assert later.end_at(second("2026-10-25T02:29:59+02:00")) is None
    assert later.end_at(second("2026-10-25T02:30:00+02:00")) is not None
    assert later.end_at(second("2026-10-25T02:15:00+01:00")) is not None


def test_a_skipped_time_is_the_moment_of_the_change() -> None:
    """Where the clock goes from 02:00 to 03:00, a window that starts or ends at 02:30 starts or ends then."""
    change = second("2026-03-29T03:00:00+02:00")
    ends = QuietHours.parse("22:00-02:30 Europe/Berlin")
    assert (ends.end_at(change - 1), ends.end_at(change)) == (change, None)
    starts = QuietHours.parse("02:30-07:00 Europe/Berlin")
    assert starts.end_at(change - 1) is None
    assert starts.end_at(change) == second("2026-03-29T07:00:00+02:00")


@given(
    st.integers(0, 1439),
    st.integers(0, 1440),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
    st.integers(second("2025-01-01T00:00:00+00:00"), second("2027-01-01T00:00:00+00:00")),
)
def test_away_from_clock_changes_the_local_time_decides(start: int, end: int, zone: str, at: int) -> None:
    """On days without a change of the clock, a time is quiet exactly if its local time lies in the window."""
    if start == end:
        return
    window = QuietHours(start, end, ZoneInfo(zone))
    local = datetime.fromtimestamp(at, window.zone)
    if len({(local + timedelta(days=days)).utcoffset() for days in (-2, -1, 0, 1, 2)}) > 1:
        return
    minute = local.hour * 60 + local.minute
    expected = start <= minute < end if start < end else minute >= start or minute < end
    assert (window.end_at(at) is not None) is expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "use a form such as 22:00-07:00"),
        ("22-07", "use a form such as 22:00-07:00"),
        ("22:00-07:00 Berlin", "no time zone 'Berlin'"),
        ("22:00-07:00 ../../etc/passwd", "no time zone"),
        ("25:00-07:00", "25:00 is no time of day"),
        ("22:60-07:00", "22:60 is no time of day"),
        ("22:00-24:01", "24:01 is no time of day"),
        ("22:00-22:00", "start and end must differ"),
        ("24:00-07:00", "start and end must differ"),
        ("mo-fr 22:00-07:00", "weekdays are mon, tue"),
        ("mon- 22:00-07:00", "weekdays are mon, tue"),
        ("mon,, 22:00-07:00", "weekdays are mon, tue"),
    ],
)
def test_a_window_of_another_form_is_refused(text: str, told: str) -> None:
    """The error has the option, the text, and the accepted form."""
    with pytest.raises(UsageError, match="--quiet-hours") as error:
        QuietHours.parse(text)
    assert told in str(error.value)
    assert repr(text) in str(error.value)


def test_windows_are_read_in_any_case_with_days_and_zone() -> None:
    """Days may be ranges over Sunday and lists; the default is every day in UTC; 24:00 is the end of the day."""
    assert QuietHours.parse("Fri-Mon 22:00-07:00").days == {4, 5, 6, 0}
    assert QuietHours.parse("sat,sun,wed 0:00-24:00").days == {5, 6, 2}
    assert QuietHours.parse("mon-mon 1:00-2:00").days == {0}
    assert QuietHours.parse("0:00 - 24:00") == QuietHours(0, 1440, ZoneInfo("UTC"))
    assert is_quiet("00:00-24:00", "2026-01-15T23:59:59+00:00")


class Clock:
    """A clock that the test sets."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.ns = second(text) * SECOND_NS

    def __call__(self) -> int:
        return self.ns


def alert(
    number: int = 0,
    product: str = "BTC-USD",
    *,
    is_open: bool = True,
    probability: float = 0.7,
    mode: Mode = Mode.LIVE,
    at: int = 1_700_000_000,
) -> Alert:
    return Alert(
        id=f"episode-{number}",
        product=product,
        is_open=is_open,
        time_ns=at * SECOND_NS,
        probability=probability,
        threshold=0.6,
        price=100.0,
        mode=mode,
    )


class Inbox:
    """A receiver that keeps what it gets."""

    address = "fake://here"

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.arrived = Event()

    def send(self, title: str, body: str) -> bool:
        self.messages.append((title, body))
        self.arrived.set()
        return True

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.messages]


def night(clock: Clock, file: Path | None = None) -> SendingRules:
    return SendingRules([QuietHours.parse(NIGHT)], file, clock)


def test_an_alert_in_quiet_hours_is_held_and_summarised() -> None:
    """It is logged with the reason; the receiver gets one summary after the end, and no closing message."""
    clock, inbox = Clock("2026-01-14T23:00:00+01:00"), Inbox()
    router = AlertRouter(receivers=[inbox], rules=night(clock))
    with structlog.testing.capture_logs() as logs:
        assert router.send(alert(1, "BTC-USD", probability=0.7)) is Suppression.QUIET_HOURS
    assert (logs[0]["event"], logs[0]["suppressed"]) == ("alert_opened", "quiet_hours")
    router.send(alert(1, "BTC-USD", probability=0.75, is_open=False))
    router.send(alert(2, "ETH-USD", probability=0.9, at=1_700_000_100))
    router.send(alert(3, "BTC-USD", probability=0.8, at=1_700_000_200))
    clock.set("2026-01-15T06:59:59+01:00")
    router.send_summary()
    clock.set("2026-01-15T07:00:00+01:00")
    router.send_summary()
    router.send_summary()
    assert router.send(alert(3, "BTC-USD", probability=0.95, is_open=False)) is Suppression.QUIET_HOURS
    assert router.send(alert(4, "BTC-USD")) is None
    assert router.close(DEADLINE_S)
    assert inbox.titles == ["3 alerts during quiet hours", "BTC-USD: volatility spike likely"]
    assert inbox.messages[0][1] == (
        "not sent during quiet hours: BTC-USD 2, ETH-USD 1; highest probability 0.900 (ETH-USD); "
        "first 2023-11-14T22:13:20Z, last 2023-11-14T22:16:40Z"
    )
    assert router.rules.suppressed == {Suppression.QUIET_HOURS: 3, Suppression.SNOOZED: 0}


def test_a_night_without_alerts_has_no_summary() -> None:
    """Nothing is sent at the end of quiet hours that held nothing back."""
    clock, inbox = Clock("2026-01-14T23:00:00+01:00"), Inbox()
    router = AlertRouter(receivers=[inbox], rules=night(clock))
    clock.set("2026-01-15T08:00:00+01:00")
    router.send_summary()
    assert router.close(DEADLINE_S)
    assert inbox.messages == []


def test_the_close_of_a_sent_alert_is_sent_in_quiet_hours() -> None:
    """A reader who saw an alert open before the night also sees it close."""
    clock, inbox = Clock("2026-01-14T21:59:59+01:00"), Inbox()
    router = AlertRouter(receivers=[inbox], rules=night(clock))
    assert router.send(alert()) is None
    clock.set("2026-01-14T22:00:00+01:00")
    assert router.send(alert(is_open=False)) is None
    assert router.close(DEADLINE_S)
    assert inbox.titles == ["BTC-USD: volatility spike likely", "BTC-USD: volatility spike alert closed"]


def test_the_router_itself_sends_the_summary_when_the_night_has_ended() -> None:
    """Its own thread notices the end of quiet hours; here the rules already hold an alert when it starts."""
    clock, inbox = Clock("2026-01-14T23:00:00+01:00"), Inbox()
    rules = night(clock)
    rules.suppress(alert(mode=Mode.SIMULATED))
    clock.set("2026-01-15T07:00:00+01:00")
    router = AlertRouter(receivers=[inbox], rules=rules)
    assert inbox.arrived.wait(DEADLINE_S)
    assert [task.name for task in router.tasks] == ["alerts", "quiet hours"]
    assert router.close(DEADLINE_S)
    assert inbox.titles == ["SIMULATED 1 alert during quiet hours"]
    assert inbox.messages[0][1].endswith("SIMULATED")


def test_windows_that_overlap_are_one_night() -> None:
    """Quiet hours end where no window contains the time, and one summary covers all of them."""
    clock = Clock("2026-01-14T20:00:00+00:00")
    rules = SendingRules([QuietHours.parse("18:00-22:00"), QuietHours.parse("21:00-06:00")], None, clock)
    assert rules.quiet_until() == second("2026-01-15T06:00:00+00:00")
    assert rules.seconds_left() == 10 * 3600
    always = SendingRules([QuietHours.parse("00:00-24:00")], None, clock)
    assert always.quiet_until() is not None
    assert SendingRules((), None, clock).quiet_until() is None


def test_a_snoozed_product_sends_nothing() -> None:
    """Neither an opening nor the close of an alert that was sent before; other products are sent."""
    clock = Clock("2026-01-14T12:00:00+00:00")
    rules = SendingRules((), None, clock)
    assert rules.suppress(alert(1)) is None
    rules.snooze("BTC-USD", 30)
    assert rules.suppress(alert(1, is_open=False)) is Suppression.SNOOZED
    assert rules.suppress(alert(2)) is Suppression.SNOOZED
    assert rules.suppress(alert(3, "ETH-USD")) is None
    clock.ns += 30 * 60 * SECOND_NS - 1
    assert rules.suppress(alert(4)) is Suppression.SNOOZED
    clock.ns += 1
    assert rules.suppress(alert(5)) is None
    assert rules.suppress(alert(4, is_open=False)) is Suppression.SNOOZED
    assert rules.suppressed == {Suppression.QUIET_HOURS: 0, Suppression.SNOOZED: 2}


def test_snoozes_are_listed_until_they_end() -> None:
    """The later of a product's own snooze and that of all products applies; each ends by itself or on request."""
    clock = Clock("2026-01-14T12:00:00+00:00")
    rules, now = SendingRules((), None, clock), second("2026-01-14T12:00:00+00:00") * 1000
    rules.snooze("ETH-USD", 60)
    rules.snooze(None, 10)
    assert rules.snoozes() == [Snooze(None, now + 600_000), Snooze("ETH-USD", now + 3_600_000)]
    assert (rules.snoozed_until("BTC-USD"), rules.snoozed_until("ETH-USD")) == (now + 600_000, now + 3_600_000)
    rules.resume("ETH-USD")
    assert rules.snoozed_until("ETH-USD") == now + 600_000
    rules.resume("ETH-USD")
    rules.resume(None)
    assert (rules.snoozes(), rules.snoozed_until("ETH-USD")) == ([], None)


def test_a_snooze_of_all_products_delays_the_summary() -> None:
    """A night ends with its summary only once alerts are sent again; snoozed alerts are not part of it."""
    clock = Clock("2026-01-14T23:00:00+01:00")
    rules = night(clock)
    rules.suppress(alert(1))
    rules.snooze(None, 600)
    assert rules.suppress(alert(2)) is Suppression.SNOOZED
    clock.set("2026-01-15T08:00:00+01:00")
    assert rules.take_summary() is None
    clock.set("2026-01-15T09:00:00+01:00")
    summary = rules.take_summary()
    assert isinstance(summary, QuietSummary)
    assert summary.title == "1 alert during quiet hours"


def test_snoozes_and_held_alerts_survive_a_restart(tmp_path: Path) -> None:
    """A restart in the night loses neither a snooze nor the summary; ended snoozes are dropped from the file."""
    clock, file = Clock("2026-01-14T23:00:00+01:00"), tmp_path / "state" / "outcomes.snoozes.json"
    first = AlertRouter(receivers=[Inbox()], rules=night(clock, file))
    first.rules.snooze("SOL-USD", 1)
    first.rules.snooze("ETH-USD", 1440)
    first.send(alert(1))
    assert first.close(DEADLINE_S)
    clock.set("2026-01-15T06:30:00+01:00")
    again = night(clock, file)
    assert [snooze.product for snooze in again.snoozes()] == ["ETH-USD"]
    assert again.suppress(alert(2, probability=0.65)) is Suppression.QUIET_HOURS
    clock.set("2026-01-15T07:00:00+01:00")
    summary = again.take_summary()
    assert summary is not None
    assert summary.held.products == {"BTC-USD": 2}
    again.save()
    assert [each["product"] for each in json.loads(file.read_bytes())["snoozes"]] == ["ETH-USD"]
    assert SendingRules((), file, clock).take_summary() is None
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name]


def test_a_summary_mixes_no_real_and_simulated_alerts() -> None:
    """After a restart on a market of another kind, the summary has its own alerts only, and the log the others."""
    clock = Clock("2026-01-14T23:00:00+01:00")
    rules = night(clock)
    rules.suppress(msgspec.structs.replace(alert(1), mode=Mode.SIMULATED, probability=0.99))
    with structlog.testing.capture_logs() as logs:
        rules.suppress(msgspec.structs.replace(alert(2), mode=Mode.LIVE))
    (lost,) = logs
    assert lost["event"] == "quiet_summary_lost"
    assert "SIMULATED" in lost["summary"]
    clock.set("2026-01-15T07:00:00+01:00")
    summary = rules.take_summary()
    assert summary is not None
    assert summary.title == "1 alert during quiet hours"
    assert "0.99" not in summary.body


def test_held_alerts_without_a_file_are_reported_when_the_program_stops() -> None:
    """The log has the summary that could not be sent."""
    clock = Clock("2026-01-14T23:00:00+01:00")
    router = AlertRouter(rules=night(clock))
    with structlog.testing.capture_logs() as logs:
        router.send(alert(1))
        assert router.close(DEADLINE_S)
    lost = [entry for entry in logs if entry["event"] == "quiet_summary_lost"]
    assert [entry["summary"].startswith("not sent during quiet hours: BTC-USD 1") for entry in lost] == [True]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'{"snoozes": [{"product": 3, "until": 1}]}',
        b'{"snoozes": [{"product": null, "until": 99999999999999999999}]}',
        b'{"snoozes": [], "other": 1}',
        b'{"snoozes": [], "held": {"products": {}}}',
        b'{"snoozes": ' + b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_renamed(content: bytes, tmp_path: Path) -> None:
    """The program starts without snoozes, and the content is kept under another name."""
    file = tmp_path / "outcomes.snoozes.json"
    file.write_bytes(content)
    rules = SendingRules((), file)
    assert rules.snoozes() == []
    (renamed,) = tmp_path.iterdir()
    assert renamed.name.startswith("outcomes.snoozes.json.damaged-")
    assert renamed.read_bytes() == content
    rules.snooze(None, 5)
    rules.save()
    assert [snooze.product for snooze in SendingRules((), file).snoozes()] == [None]


def test_a_disk_that_refuses_the_file_stops_nothing(tmp_path: Path) -> None:
    """The snooze applies, the log has the reason, and the next save tries again."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    rules = SendingRules((), blocked / "outcomes.snoozes.json")
    rules.snooze("BTC-USD", 5)
    with structlog.testing.capture_logs() as logs:
        rules.save()
        rules.save()
    assert [entry["event"] for entry in logs] == ["snoozes_not_saved"] * 2
    assert rules.suppress(alert()) is Suppression.SNOOZED


def test_alerts_that_never_close_are_forgotten() -> None:
    """The memory of alerts that were not sent is bounded."""
    rules = SendingRules()
    rules.snooze(None, 1440)
    for number in range(3000):
        rules.suppress(alert(number))
    assert len(rules._unsent) == 1024


def test_an_alert_message_has_a_protocol_of_three_texts() -> None:
    """An alert and a summary have an id, a title and a body of one line each."""
    clock = Clock("2026-01-14T23:00:00+01:00")
    rules = night(clock)
    rules.suppress(msgspec.structs.replace(alert(), mode=Mode.SIMULATED_REPLAY))
    clock.set("2026-01-15T12:00:00+01:00")
    summary = rules.take_summary()
    assert summary is not None
    for text in (summary.id, summary.title, summary.body):
        assert text
        assert "\n" not in text
    assert summary.id == f"quiet-hours-{1_700_000_000 * SECOND_NS}"
    assert datetime.fromtimestamp(1_700_000_000, UTC).strftime("%H:%M:%S") in summary.body
