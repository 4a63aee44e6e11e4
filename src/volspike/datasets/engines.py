"""Which engine a replay takes."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

from volspike.datasets.shared import Engine
from volspike.errors import UsageError

ENGINES = ("local", "ray")


def engine_of(name: str, workers: int | None, address: str | None) -> AbstractContextManager[Engine | None]:
    """The engine of this name, to be entered; None for one pass.

    ``workers`` None means one pass with ``local``, since each process takes memory of its own; with ``ray`` the cores.

    Raises:
        UsageError: no such engine, or Ray is not there.
    """
    if name not in ENGINES:
        raise UsageError(f"--engine is one of {', '.join(ENGINES)}; was {name!r}")
    if address is not None and name != "ray":
        raise UsageError("--ray-address belongs to --engine ray")
    if name == "ray":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        from volspike.datasets.ray_engine import RayEngine  # noqa: PLC0415  an extra

        return RayEngine(workers or cores, address)
    if workers is None or workers == 1:
        return nullcontext()
    from volspike.datasets.local_engine import LocalEngine  # noqa: PLC0415  most replays need none

    return LocalEngine(workers)
