"""``volspike import``: files of exchanges and other programs → tapes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Timezone, require_folder
from volspike.cli.screen import out, table, warn, working
from volspike.errors import UsageError
from volspike.progress import Step

if TYPE_CHECKING:
    from volspike.tape.foreign_columns import TradeFileReport
    from volspike.tape.import_tapes import ImportedFile

EXAMPLES = "Example: volspike import trades.csv.gz --product kraken:ETH-USD --columns time=ts,price=p,size=q"

SHOWN_REJECTIONS = 5


def run(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="CSV, JSON, Parquet or zip files, or globs.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the tapes.")] = Path("data/imported"),
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="tardis, binance, bybit, okx, kraken, cryptofeed, nautilus, ccxt, bitcoincharts or csv; auto "
            "recognises the file.",
        ),
    ] = "auto",
    product: Annotated[
        str | None,
        typer.Option(help="Product of files that state none, such as binance:BTC-USDT."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of a table by name or number, as time=ts,price=p; also received, size, side, "
            "buyer_is_maker, id, bid, ask, bid_size, ask_size, product and venue."
        ),
    ] = None,
    timezone: Timezone = None,
) -> None:
    """Import trades and quotes from files of exchanges and other programs as tapes."""
    from volspike.tape.import_tapes import ImportOptions, import_files, read_columns

    require_folder("--out", out_folder)
    options = ImportOptions(
        file_format=file_format.lower(),
        product_id=product,
        columns=None if columns is None else read_columns([columns]),
        timezone=timezone,
    )
    paths = _paths(files)
    with working("importing") as show:
        results = import_files(
            paths,
            out_folder,
            options,
            on_progress=lambda source, done: show(
                Step(f"{source.name.name}, {done / 1e6:,.0f} of {source.size / 1e6:,.0f} MB", done / source.size)
            ),
        )
        for result in results:
            _print_result(result)


def _paths(files: list[str]) -> list[Path]:
    from volspike.tape.names import expand_pattern

    found: dict[Path, None] = {}
    for name in files:
        path = Path(name).expanduser()
        if path.exists():
            found[path] = None
            continue
        matches = sorted(expand_pattern(path)) if any(sign in name for sign in "*?[") else []
        if not matches:
            raise UsageError(f"no such file: {name}")
        found.update(dict.fromkeys(matches))
    return list(found)


def _print_result(result: ImportedFile) -> None:
    from volspike.market import format_time

    report = result.report
    name = str(result.source.label)
    if report is None:
        out.print(f"{name} → {result.tape} (already there)")
        return
    header = "with a header" if report.has_header else "without a header"
    out.print(f"{name}: {result.format_name}, {header}")
    out.print("  " + "; ".join(_column(column, reading) for column, reading in report.columns.items()))
    if result.order:
        warn(f"{name}: {result.order}")
    _warn_of_faults(name, report, result)
    rows = [
        (
            product.product_id,
            format_time(product.first),
            format_time(product.last),
            f"{product.ticks:,}",
            "unknown" if product.missing is None else f"{product.missing:,}",
            f"{product.median_per_second:g}",
            f"{product.active_share:.1%}",
        )
        for product in result.products
    ]
    heads = ("product", "first", "last", "ticks", "missing ids", "median per second", "seconds with a tick")
    table(f"{result.tape}", heads, rows, texts=3)
    sizes = f", sizes in {report.size_unit}" if report.size_unit else ""
    out.print(
        f"{report.rows:,} rows, {report.rejected:,} rejected, {result.duplicates:,} duplicates{sizes} → {result.tape}"
    )


def _warn_of_faults(name: str, report: TradeFileReport, result: ImportedFile) -> None:
    for rejected in report.rejections[:SHOWN_REJECTIONS]:
        warn(f"{rejected.file}:{rejected.line}: {rejected.reason}")
    if report.rejected:
        kept = f" and kept in {result.rejected_file}" if result.rejected_file is not None else ""
        warn(f"{name}: {report.rejected:,} damaged of {report.rows:,} rows were rejected{kept}")
    for note in report.notes:
        warn(f"{name}: {note}")
    if report.fault is not None:
        warn(f"{name}: {report.fault}")


def _column(column: str, reading: str) -> str:
    """How one column was read: ``timestamp → time, µs``."""
    from volspike.tape.import_tapes import COLUMN_FIELDS

    labels = {tick_field: label for label, tick_field in COLUMN_FIELDS.items()}
    tick_field, comma, units = reading.partition(", ")
    place = column.partition(" (")[0] if column.startswith("column ") else column
    return f"{place} → {labels.get(tick_field, tick_field)}{comma}{units}"
