"""Recorded ticks: writing tapes, and reading them in time order.

A tape is NDJSON (the live form; also compressed) or Parquet (the compact form) of the same ticks.
"""

from volspike.tape.compact import CompactedHour, Compaction, compact, convert
from volspike.tape.ledger import LONGEST_SILENCE_S, Ledger, LedgerContents, ledgers_of, read_ledger, silences
from volspike.tape.names import LEDGER_NAME, TapeName, product_of, read_tape_name, tape_name, tapes_of
from volspike.tape.parquet import ParquetTape, tick_table, write_parquet
from volspike.tape.reader import CHUNK, read_ticks
from volspike.tape.recorder import Recorder
from volspike.tape.report import KEPT_REJECTIONS, REJECTED_ENDING, Note, Rejection, TapeReport, rejected_path
from volspike.tape.table import TAPE_SCHEMA, TableTape, tape_metadata
from volspike.tape.tick_frames import frame_tape
from volspike.tape.upkeep import KEEP_DAYS, TapeUpkeep, UpkeepResult, delete_expired
from volspike.tape.write import DayFigures, TapeWriter, tape_line, write_ndjson

__all__ = [
    "CHUNK",
    "KEEP_DAYS",
    "KEPT_REJECTIONS",
    "LEDGER_NAME",
    "LONGEST_SILENCE_S",
    "REJECTED_ENDING",
    "TAPE_SCHEMA",
    "CompactedHour",
    "Compaction",
    "DayFigures",
    "Ledger",
    "LedgerContents",
    "Note",
    "ParquetTape",
    "Recorder",
    "Rejection",
    "TableTape",
    "TapeName",
    "TapeReport",
    "TapeUpkeep",
    "TapeWriter",
    "UpkeepResult",
    "compact",
    "convert",
    "delete_expired",
    "frame_tape",
    "ledgers_of",
    "product_of",
    "read_ledger",
    "read_tape_name",
    "read_ticks",
    "rejected_path",
    "silences",
    "tape_line",
    "tape_metadata",
    "tape_name",
    "tapes_of",
    "tick_table",
    "write_ndjson",
    "write_parquet",
]
