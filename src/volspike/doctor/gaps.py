"""What the tapes of today (UTC) are without, from their ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from volspike.doctor.disk import DAY_NS
from volspike.doctor.finding import Fact, Finding, Severity
from volspike.errors import UnreadableFile
from volspike.market import SECOND_NS, Gap, instant
from volspike.tape import LEDGER_NAME, read_ledger
from volspike.tape.names import is_tape

CHECK: Final = "gaps today"
NOTICED_SHARE: Final = 0.01
"""Beyond this share of the day so far, figures of the day are of another market than the one that was."""


def look_at_gaps(tape: Path, now: int) -> list[Finding]:
    """The gaps that reach into the day of ``now`` (ns UTC)."""
    if not tape.is_dir() or not any(is_tape(path) for path in tape.iterdir()):
        found = f"{tape} holds no tape"
        remedy = "record one: `volspike up` or `volspike ingest`"
        return [Finding(check=CHECK, severity=Severity.NOTE, found=found, remedy=remedy, facts={"path": str(tape)})]
    try:
        told = read_ledger(tape)
    except UnreadableFile as error:
        remedy = "give the user the right to read it"
        return [Finding(check=CHECK, severity=Severity.BAD, found=str(error), remedy=remedy, facts={"path": str(tape)})]
    midnight = now - now % DAY_NS
    today = [gap for gap in told.gaps if gap.end > midnight]
    findings = [_judged(tape, today, midnight, now)]
    if told.damaged:
        found = f"{tape / LEDGER_NAME}: {told.damaged:,} damaged lines"
        remedy = "nothing is lost but what they told; `volspike gaps` leaves them out"
        facts: dict[str, Fact] = {"damaged": told.damaged}
        findings.append(Finding(check=CHECK, severity=Severity.NOTE, found=found, remedy=remedy, facts=facts))
    return findings


def _judged(tape: Path, gaps: list[Gap], midnight: int, now: int) -> Finding:
    seconds = missing_seconds(gaps, midnight)
    share = seconds * SECOND_NS / max(now - midnight, SECOND_NS)
    causes = ", ".join(sorted({gap.cause.value for gap in gaps}))
    facts: dict[str, Fact] = {
        "path": str(tape),
        "gaps": len(gaps),
        "seconds": seconds,
        "share": share,
        "causes": causes,
    }
    if not gaps:
        return Finding(check=CHECK, severity=Severity.FINE, found=f"none in the ledger of {tape}", facts=facts)
    found = f"{len(gaps):,} gaps of together {seconds:,.1f} s ({100 * share:.2f} % of the day so far): {causes}"
    remedy = (
        f"`volspike gaps --tape {tape} --since {instant(midnight)}`; `volspike backfill --gaps {tape}` fetches trades"
    )
    severity = Severity.WARNING if share > NOTICED_SHARE else Severity.NOTE
    return Finding(check=CHECK, severity=severity, found=found, remedy=remedy, facts=facts)


def missing_seconds(gaps: list[Gap], since: int) -> float:
    """The seconds from ``since`` (ns UTC) on in which anything was missing, each counted once."""
    covered, reached = 0, since
    for gap in sorted(gaps, key=lambda gap: gap.start):
        covered += max(0, gap.end - max(gap.start, reached))
        reached = max(reached, gap.end)
    return covered / SECOND_NS
