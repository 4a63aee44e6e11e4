"""What a simulated exchange is told before it opens."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

import msgspec

from volspike.errors import UsageError
from volspike.feeds.simulated_faults import Faults
from volspike.market import SECOND_NS

LAST_NS = 2**63 - 1
_PRODUCT = re.compile(r"[A-Z0-9]+(-[A-Z0-9]+)+")
_Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class SimulatedExchangeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which market is simulated, how fast, where it listens, and what goes wrong.

    ``start`` is in ns UTC, ``None`` is now; after ``seconds`` of simulated time the market ends and connections are
    closed, 0 is never. Port 0 takes a free one. A client that is ``buffer_bytes`` behind is disconnected; at speed 0
    one that reads nothing for ``patience_s``. At speed 0 the market waits until each client has sent ``subscribes``
    subscribe messages, so that a run can be repeated frame by frame. The newest ``kept`` frames stay on record.
    With a ``head_start_s`` the market begins that much earlier and is told as at speed 0 until it has caught up: who
    listens has a past to look back on at once.
    """

    products: tuple[str, ...] = ("BTC-USD", "ETH-USD")
    seed: Annotated[int, msgspec.Meta(ge=0)] = 7
    speed: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    start: int | None = None
    head_start_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    seconds: Annotated[int, msgspec.Meta(ge=0)] = 0
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    subscribe_within_s: _Positive = 5.0
    patience_s: _Positive = 5.0
    buffer_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 20
    subscribes: Annotated[int, msgspec.Meta(ge=1)] = 1
    compression: bool = True
    kept: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    faults: Faults = Faults()


def check(settings: SimulatedExchangeSettings) -> None:
    """Raises ``UsageError`` for what no market can be."""
    products = settings.products
    if not products or len(set(products)) < len(products) or not all(map(_PRODUCT.fullmatch, products)):
        raise UsageError(f"products must be different names like BTC-USD, were {', '.join(products) or 'none'}")
    if sum(settings.faults.rates) > 1:
        raise UsageError(f"the rates of faults add up to {sum(settings.faults.rates):g}; at most one strikes a frame")
    if settings.start is not None and not 0 <= settings.start <= LAST_NS - (settings.seconds + 86_400) * SECOND_NS:
        raise UsageError(f"the simulated market would run beyond what nanoseconds hold: start {settings.start}")
