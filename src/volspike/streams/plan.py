"""What a worker is asked to do."""

from __future__ import annotations

import msgspec


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker reads and writes, and how often it commits.

    ``name`` tells the workers of a group apart: one that comes back under its name takes back at once what it left
    open. A transaction has at most ``commit_rows`` messages, and a new one ends at the earliest ``commit_ms`` after the
    last. A snapshot is made after ``snapshot_rows`` messages or ``snapshot_s``, whichever comes first.
    """

    group: str
    name: str
    topic_in: str
    topic_out: str
    commit_ms: float = 20.0
    commit_rows: int = 10_000
    snapshot_rows: int = 100_000
    snapshot_s: float = 30.0
    cold_start: bool = False
    finish: bool = False
    """End once everything that lies in the topic is taken."""
