"""The checks of this machine: packages, disk space, the model, the gap ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from volspike.config import FeedSettings
from volspike.doctor.finding import Finding, Severity, worst_of
from volspike.doctor.machine import (
    DAY_NS,
    Room,
    bytes_per_day,
    check_disk,
    check_gaps,
    check_model,
    check_packages,
    extras_of,
    mismatch,
    room_at,
)
from volspike.market import SECOND_NS, Cause, Gap, parse_time
from volspike.models import DEFAULT_MODEL, METADATA_FILE, ONNX_FILE, SIMULATED_MODEL, TEN_MODEL
from volspike.tape import LEDGER_NAME, Ledger, tape_name

NOW = parse_time("2026-01-05T12:00:00Z")
GB = 1 << 30


def test_a_finding_that_is_not_fine_says_what_to_do() -> None:
    """A finding that is not fine needs a remedy; no findings at all are fine."""
    with pytest.raises(ValueError, match="without a remedy"):
        Finding(check="x", severity=Severity.NOTE, found="y")
    findings = [Finding(check="x", severity=each, found="y", remedy="z") for each in Severity]
    assert worst_of(findings) is Severity.BAD
    assert worst_of(findings[:2]) is Severity.NOTE
    assert worst_of([]) is Severity.FINE


def test_packages_here_are_as_declared() -> None:
    """The environment of the tests has a complete base install and the extras that they use."""
    versions, extras, plugins = check_packages()
    assert plugins.severity is Severity.FINE, plugins.found
    assert versions.severity is Severity.FINE, versions.found
    assert versions.facts["numpy"]
    assert {"kafka", "tracking", "dev"} <= set(str(extras.facts["installed"]).split())


@pytest.mark.parametrize(
    ("required", "message"),
    [("numpy>=2.0", ""), ("numpy<1", "numpy"), ("no-such-package>=1", "absent"), ("numpy", "")],
)
def test_mismatches_are_named(required: str, message: str) -> None:
    """A package that is absent or outside its range is named with the required version."""
    found = mismatch(Requirement(required))
    assert (message in found) if message else found == ""


def test_extras_are_those_with_packages_of_their_own() -> None:
    """The extra `all` is not listed, and neither is an environment marker."""
    declared = ['a; extra == "one"', 'volspike[one]; extra == "all"', 'b; python_version >= "3"', 'c; extra == "two"']
    assert extras_of([Requirement(text) for text in declared]) == ["one", "two"]


def tape_of(folder: Path, started: int, size: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / tape_name("BTC-USD", started)).write_bytes(b"x" * size)


def test_growth_is_that_of_the_last_day(tmp_path: Path) -> None:
    """Older tapes do not count, some hours are extrapolated to a day, and a few minutes give no rate."""
    folder = tmp_path / "raw"
    assert bytes_per_day(folder, NOW) is None
    tape_of(folder, NOW - 300 * SECOND_NS, 10)
    assert bytes_per_day(folder, NOW) is None
    tape_of(folder, NOW - 6 * 3600 * SECOND_NS, 90)
    tape_of(folder, NOW - 2 * DAY_NS, 5000)
    assert bytes_per_day(folder, NOW) == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("free", "a_day", "severity"),
    [
        (100 * GB, 0, Severity.FINE),
        (1 * GB, 0, Severity.WARNING),
        (GB // 4, 0, Severity.BAD),
        (100 * GB, 50 * GB, Severity.WARNING),
        (100 * GB, 200 * GB, Severity.BAD),
    ],
)
def test_disk_space_is_rated_by_bytes_and_by_days(free: int, a_day: int, severity: Severity, tmp_path: Path) -> None:
    """Little space is bad, and so is space for less than a day."""
    if a_day:
        (tmp_path / "raw").mkdir()
        file = tmp_path / "raw" / tape_name("BTC-USD", NOW - 6 * 3600 * SECOND_NS)
        with file.open("wb") as sparse:
            sparse.truncate(a_day // 4)
    findings = check_disk(tmp_path / "raw", tmp_path / "o.sqlite", NOW, lambda _: Room(free, True))
    assert findings[0].severity is severity
    assert ("a day" in findings[0].found) == bool(a_day)


def test_a_place_that_cannot_be_written_is_bad(tmp_path: Path) -> None:
    """A file in the place of the folder makes it unwritable for every user."""
    (tmp_path / "raw").touch()
    assert room_at(tmp_path / "raw" / "deeper").is_writable is False
    tapes, outcomes = check_disk(tmp_path / "raw" / "deeper", tmp_path / "new" / "o.sqlite", NOW)
    assert (tapes.severity, tapes.found) == (Severity.BAD, f"{tmp_path / 'raw' / 'deeper'} is not writable")
    assert outcomes.severity is not Severity.BAD
    assert not (tmp_path / "new").exists()


def test_the_model_is_the_one_that_up_would_serve(tmp_path: Path) -> None:
    """The production model if there is one, otherwise the shipped model as a note, with digest and age."""
    production = tmp_path / "production"
    (shipped,) = check_model(None, production, [FeedSettings()])
    assert (shipped.severity, shipped.facts["path"]) == (Severity.NOTE, str(DEFAULT_MODEL))
    shutil.copytree(DEFAULT_MODEL, production)
    (own,) = check_model(None, production, [FeedSettings()])
    assert own.severity is Severity.FINE
    assert own.facts["digest"] == shipped.facts["digest"]
    assert str(own.facts["created"])[:19] in own.found
    (simulated,) = check_model(SIMULATED_MODEL, production, [FeedSettings()])
    assert simulated.severity is Severity.WARNING
    assert "SIMULATED" in simulated.found


def test_a_model_that_cannot_be_served_is_bad(tmp_path: Path) -> None:
    """A model is bad if it is absent, damaged, or needs trades that the feed does not send."""
    (absent,) = check_model(tmp_path / "none", tmp_path, [FeedSettings()])
    assert absent.severity is Severity.BAD
    damaged = tmp_path / "damaged"
    shutil.copytree(DEFAULT_MODEL, damaged)
    (damaged / ONNX_FILE).write_bytes(b"")
    (finding,) = check_model(damaged, tmp_path, [FeedSettings()])
    assert finding.severity is Severity.BAD
    assert "sha256" in finding.found
    other = tmp_path / "other"
    shutil.copytree(TEN_MODEL, other)
    text = (other / METADATA_FILE).read_text().replace('"profile": "ticker"', '"profile": "ticker+trade"')
    text = text.replace('"price_velocity_300s"', '"volume_velocity_300s"')
    (other / METADATA_FILE).write_text(text)
    assert check_model(other, tmp_path, [FeedSettings()])[0].severity is not Severity.BAD
    (finding,) = check_model(other, tmp_path, [FeedSettings(protocol="coinbase-exchange")])
    assert finding.severity is Severity.BAD
    assert "missing: volume_velocity_300s" in finding.found


def gap(start: int, end: int) -> Gap:
    return Gap(start=start, end=end, products=("BTC-USD",), cause=Cause.SILENCE)


def test_gaps_of_today_are_counted_once(tmp_path: Path) -> None:
    """Yesterday's gaps do not count, a gap across midnight counts from midnight, overlapping gaps count once."""
    (empty,) = check_gaps(tmp_path, NOW)
    assert empty.severity is Severity.NOTE
    tape_of(tmp_path, NOW, 1)
    (fine,) = check_gaps(tmp_path, NOW)
    assert fine.severity is Severity.FINE
    midnight = NOW - NOW % DAY_NS
    ledger = Ledger(tmp_path)
    ledger.add(gap(midnight - 900 * SECOND_NS, midnight - 600 * SECOND_NS))
    ledger.add(gap(midnight - 30 * SECOND_NS, midnight + 30 * SECOND_NS))
    ledger.add(gap(midnight + 20 * SECOND_NS, midnight + 50 * SECOND_NS))
    assert ledger.flush()
    (noted,) = check_gaps(tmp_path, NOW)
    assert (noted.severity, noted.facts["gaps"], noted.facts["seconds"]) == (Severity.NOTE, 2, 50.0)
    assert "--since 2026-01-05T00:00:00Z" in noted.remedy
    ledger.add(gap(NOW - 1000 * SECOND_NS, NOW))
    assert ledger.flush()
    (warned,) = check_gaps(tmp_path, NOW)
    assert warned.severity is Severity.WARNING


def test_a_recording_that_shows_no_loss_is_noted(tmp_path: Path) -> None:
    """Its products are named, next to the gaps."""
    tape_of(tmp_path, NOW, 1)
    ledger = Ledger(tmp_path)
    products = ("bybit:BTC-USDT",)
    ledger.add(Gap(start=NOW - 5, end=NOW, products=products, cause=Cause.UNVERIFIABLE, verifiable=False))
    assert ledger.flush()
    fine, noted = check_gaps(tmp_path, NOW)
    assert (fine.severity, noted.severity) == (Severity.FINE, Severity.NOTE)
    assert "no loss can be noticed on the feed of bybit:BTC-USDT" in noted.found


def test_a_damaged_ledger_is_noted(tmp_path: Path) -> None:
    """Unreadable lines of the ledger are counted."""
    tape_of(tmp_path, NOW, 1)
    (tmp_path / LEDGER_NAME).write_text("{half a li\n")
    fine, noted = check_gaps(tmp_path, NOW)
    assert fine.severity is Severity.FINE
    assert (noted.severity, noted.facts["damaged"]) == (Severity.NOTE, 1)
