"""The ticks of a tape on their way from the process that read it: an Arrow file, uncompressed, gone once it is read.

The processes need nothing but this room: the feature kernel's compiler would take longer to import than a tape to read.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa

from volspike.market import Ticks
from volspike.market.tick import DTYPES
from volspike.tape.reader import read_ticks
from volspike.tape.report import TapeReport

_SCHEMA = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name, dtype in DTYPES.items()])


def spool_tape(tape: Path, spool: Path) -> TapeReport:
    """Reads a tape into ``spool``, its damaged lines set aside; what became of it."""
    report = TapeReport()
    with pa.OSFile(str(spool), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as stream:
        for ticks in read_ticks([tape], report=report):
            batch = pa.record_batch([pa.array(column) for _, column in ticks.columns()], schema=_SCHEMA)
            stream.write_batch(batch, {"products": json.dumps(ticks.products)})
    return report


def read_spool(spool: Path) -> Iterator[Ticks]:
    """The ticks in the parts in which they were written."""
    with pa.memory_map(str(spool)) as file, pa.ipc.open_stream(file) as stream:
        while True:
            try:
                batch, told = stream.read_next_batch_with_custom_metadata()
            except StopIteration:
                return
            columns = {name: np.array(batch.column(name)) for name in DTYPES}
            yield Ticks(tuple(json.loads(told["products"])), **columns)


def enter_worker() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
