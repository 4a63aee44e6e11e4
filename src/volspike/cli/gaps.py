"""``volspike gaps``: lost data according to the gap ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from volspike.cli.options import instant
from volspike.cli.screen import note_if_simulated, out, print_tape_report, reading, table, warn

if TYPE_CHECKING:
    from volspike.market import Gap, Ticks

EXAMPLES = "Example: volspike gaps --tape data/raw --product BTC-USD --since 2025-12-06T05:00:00Z"

DETAIL_CHARACTERS = 60


def run(
    tape: Annotated[Path, typer.Option(help="Folder of the tapes and their ledger, or a tape without one.")],
    product: Annotated[str | None, typer.Option(help="Only the gaps of this product.")] = None,
    since: Annotated[str | None, typer.Option(help="Only gaps that end after this time (RFC 3339).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """List lost data: when, which products, why, and how many messages if that is known.

    In a folder without a ledger, silences of a product over 10 s are reported as gaps; a calm market and a loss look
    alike there. The total counts each second with missing data once.
    """
    from volspike.market.product import canonical_product

    earliest = None if since is None else instant("--since", since)
    origin, gaps, blind, simulated = _gaps(tape)

    names = set() if product is None else {product, canonical_product(product)}

    def is_chosen(gap: Gap) -> bool:
        return (not names or not names.isdisjoint(gap.products)) and (earliest is None or gap.end > earliest)

    chosen = [gap for gap in gaps if is_chosen(gap)]
    # the end of a span without length is unknown: its recorder was killed, or still runs
    unverifiable = [
        span for span in blind if is_chosen(span) or (span.start == span.end and is_chosen(_open_end(span)))
    ]
    total = _total(chosen)
    if as_json:
        entries = {"gaps": [*map(_as_json, chosen)], "unverifiable": [*map(_as_json, unverifiable)]}
        print(json.dumps({"origin": origin, **entries, "total": total}))
        return
    note_if_simulated(simulated)
    rows = [_row(gap) for gap in chosen]
    unknown = f"; unknown in {total['uncounted']:,} of the gaps" if total["uncounted"] else ""
    if rows:
        table(f"gaps ({origin})", ["start", "end", "seconds", "lost", "cause", "products", "detail"], rows)
    _print_unverifiable(unverifiable)
    known = "known " if unverifiable else ""
    out.print(f"{total['gaps']:,} {known}gaps, {total['seconds']:,.3f} s, {total['lost']:,} messages lost{unknown}")


def _open_end(span: Gap) -> Gap:
    import msgspec

    return msgspec.structs.replace(span, end=2**63 - 1)


def _print_unverifiable(spans: Sequence[Gap]) -> None:
    """Names the recordings that are never complete, because their feed shows no loss."""
    for span in spans:
        until = "its end is unknown" if span.start == span.end else f"until {_short(span.end)}"
        warn(
            f"{' '.join(span.products)} from {_short(span.start)}, {until}: {span.detail}; the recording may lack data"
        )


def _gaps(tape: Path) -> tuple[str, list[Gap], list[Gap], bool]:
    """The source of the gaps, the gaps, spans in which none can be noticed, and whether the tape read is simulated."""
    from volspike.tape import LEDGER_NAME, TapeReport, read_ledger, read_ticks, silences

    if (tape / LEDGER_NAME).exists():
        ledger = read_ledger(tape)
        if ledger.damaged:
            warn(f"{tape / LEDGER_NAME}: {ledger.damaged:,} damaged lines were ignored")
        return "ledger", ledger.gaps, ledger.unverifiable, False
    report = TapeReport()
    with reading("searching for silences") as show:
        parts = read_ticks(tape, report=report, keep_rejected=False)
        gaps = silences(_shown(parts, lambda: show(report)))
    print_tape_report(report)
    return "silences of the tape", gaps, [], report.simulated


def _shown(parts: Iterable[Ticks], show: Callable[[], None]) -> Iterator[Ticks]:
    for part in parts:
        show()
        yield part


def _total(gaps: Sequence[Gap]) -> dict[str, Any]:
    """Number of gaps, seconds that they cover together, and messages lost where that is known."""
    from volspike.tape.ledger import missing_seconds

    return {
        "gaps": len(gaps),
        "seconds": missing_seconds(gaps),
        "lost": sum(gap.lost for gap in gaps if gap.lost >= 0),
        "uncounted": sum(gap.lost < 0 for gap in gaps),
    }


def _as_json(gap: Gap) -> dict[str, Any]:
    from volspike.tape.ledger import gap_line

    return {**json.loads(gap_line(gap)), "seconds": (gap.end - gap.start) / 1e9}


def _row(gap: Gap) -> list[str]:
    lost = "–" if gap.lost < 0 else f"{gap.lost:,}"
    seconds = f"{(gap.end - gap.start) / 1e9:,.3f}"
    return [
        _short(gap.start),
        _short(gap.end),
        seconds,
        lost,
        gap.cause.value,
        " ".join(gap.products),
        _first_words(gap.detail),
    ]


def _first_words(detail: str) -> str:
    """The beginning of a long detail; ``--json`` has all of it."""
    return detail if len(detail) <= DETAIL_CHARACTERS else f"{detail[: DETAIL_CHARACTERS - 1]}…"


def _short(ns: int) -> str:
    """The time to the millisecond; ``--json`` has all digits."""
    from volspike.market import format_time

    return format_time(ns // 1_000_000 * 1_000_000)
