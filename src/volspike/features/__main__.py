"""``python -m volspike.features`` compiles the kernel for both doors and both row rates, so later starts are quick.

The core and the full feature set are compiled; the deep one is at its first use, which takes about ten seconds.

numba keeps the machine code on disk beside the kernel, or in the user's cache where that folder cannot be written.
"""

from __future__ import annotations

from volspike.features.engine import FeatureEngine
from volspike.features.rows import Every
from volspike.features.schema import FeatureSet, Scope
from volspike.market import Kind, Tick, Ticks


def compile_kernel() -> None:
    """Runs one tick through each door."""
    tick = Tick(time=10**18, received=10**18, kind=Kind.TICKER, product_id="X", price=1.0)
    for scope in (Scope.CORE, Scope.FULL):
        for every in Every:
            FeatureEngine(FeatureSet(scope=scope), every=every).update(tick)
            list(FeatureEngine(FeatureSet(scope=scope), every=every).run(Ticks.of([tick])))


if __name__ == "__main__":
    compile_kernel()
