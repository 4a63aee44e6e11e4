"""Recorded ticks: tapes written, and read fast, in time order, with their damaged lines set aside.

A tape is NDJSON (the live form; also compressed) or Parquet (the compact form) of the same ticks.
"""

from volspike.tape.convert import convert
from volspike.tape.files import tapes_of
from volspike.tape.names import TapeName, product_of, read_tape_name, tape_name
from volspike.tape.parquet_writer import ParquetTape, write_parquet
from volspike.tape.reader import CHUNK, read_ticks
from volspike.tape.rejects import REJECTED_ENDING, rejected_path
from volspike.tape.report import KEPT_REJECTIONS, Note, Rejected, TapeReport
from volspike.tape.schema import TAPE_SCHEMA
from volspike.tape.writer import DayFigures, TapeWriter, tape_line, write_ndjson

__all__ = [
    "CHUNK",
    "KEPT_REJECTIONS",
    "REJECTED_ENDING",
    "TAPE_SCHEMA",
    "DayFigures",
    "Note",
    "ParquetTape",
    "Rejected",
    "TapeName",
    "TapeReport",
    "TapeWriter",
    "convert",
    "product_of",
    "read_tape_name",
    "read_ticks",
    "rejected_path",
    "tape_line",
    "tape_name",
    "tapes_of",
    "write_ndjson",
    "write_parquet",
]
