"""The protocols of all venues: the built-in ones, one codec per module, and those of installed distributions.

A distribution adds one with an entry point of the group ``volspike.venues`` that names a ``FeedProtocol``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final

import msgspec
import structlog

from volspike.config import FeedSettings
from volspike.errors import MalformedTick, UsageError
from volspike.feeds.events import Frame
from volspike.feeds.messages import decode_json, replace_invalid_numbers
from volspike.feeds.protocol import FeedProtocol
from volspike.market.product import COINBASE, product_name, split_product
from volspike.plugins import VENUES, Plugin

ENTRY_POINTS: Final = VENUES
_BUILT_IN: Final = ("coinbase_advanced_trade", "coinbase_exchange", "binance", "kraken", "okx", "bybit")

_RESERVED: Final = ("auto", "simulator", "tape")
"""Values of ``--source`` that are no protocols."""
_NAME: Final = re.compile(rf"(?!(?:{'|'.join(_RESERVED)})$)[a-z][a-z0-9-]*")

SIMULATOR: Final = "simulator"
SOURCES: Final = ("auto", SIMULATOR, "tape:PATH")
"""Values of ``--source`` that name no protocol."""

log = structlog.get_logger(__name__)


@cache
def all_protocols() -> Mapping[str, FeedProtocol]:
    """Name → protocol; the built-in ones first. A distribution whose protocol cannot be used is logged and left out.

    A venue with several protocols is listened to by the first.
    """
    found: dict[str, FeedProtocol] = {}
    for module in _BUILT_IN:
        protocol: FeedProtocol = import_module(f"{__name__}.{module}").PROTOCOL
        found[protocol.name] = protocol
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            added = load_protocol(entry, found)
        except UsageError as error:
            log.warning("venue_not_usable", reason=str(error))
        else:
            found[added.name] = added
    return MappingProxyType(found)


def load_protocol(entry: EntryPoint, known: Mapping[str, FeedProtocol]) -> FeedProtocol:
    """The protocol of an entry point.

    Raises:
        UsageError: it cannot be imported, is no ``FeedProtocol``, or its name or venue is invalid or taken; the message
            names the distribution.
    """
    plugin = Plugin(entry)
    place, protocol = plugin.place, plugin.load()
    if not isinstance(protocol, FeedProtocol):
        raise UsageError(f"{place} must name a FeedProtocol, got {type(protocol).__name__}")
    for field, text in (("name", protocol.name), ("venue", protocol.venue)):
        if _NAME.fullmatch(text) is None:
            raise UsageError(
                f"{place} has the {field} {text!r}; use lower-case letters, digits and hyphens, and not "
                f"{' or '.join(_RESERVED)}"
            )
    if protocol.name in known:
        raise UsageError(f"{place} defines the protocol {protocol.name}, which exists already; give it another name")
    return protocol


def protocol_named(name: str) -> FeedProtocol:
    """The protocol of this name.

    Raises:
        UsageError: there is none; the message lists all.
    """
    try:
        return all_protocols()[name]
    except KeyError:
        raise UsageError(f"no protocol {name!r}; there are {', '.join(all_protocols())}") from None


def venue_settings(name: str, settings: FeedSettings) -> list[FeedSettings]:
    """The settings of each venue's session, in the order in which the products name the venues.

    ``name`` is ``auto`` or ``simulator``, which take each product at its own venue, or a protocol.

    Raises:
        UsageError: unknown source, or a product of a venue that has no protocol or another one than ``name``.
    """
    protocols = all_protocols()
    if name not in protocols and name not in {"auto", SIMULATOR}:
        raise UsageError(f"unknown --source {name!r}; use one of {', '.join((*SOURCES, *protocols))}")
    of_venue = {protocol.venue: each for each, protocol in reversed(list(protocols.items()))}
    products: dict[str, list[str]] = {}
    for product in settings.products:
        if name in protocols:
            own = protocols[name].venue
            venue, symbol = split_product(product, own)
            if venue != own:
                raise UsageError(
                    f"--source {name} listens to {own} only, and {product} is a product of {venue}; use --source auto"
                )
            products.setdefault(name, []).append(product_name(venue, symbol))
        else:
            venue, symbol = split_product(product)
            if venue not in of_venue:
                raise UsageError(f"{product}: no protocol for {venue}; there is one for {', '.join(of_venue)}")
            products.setdefault(of_venue[venue], []).append(product_name(venue, symbol))
    return [
        msgspec.structs.replace(
            settings, protocol=protocol, products=tuple(dict.fromkeys(names)), url=_url(protocol, settings)
        )
        for protocol, names in products.items()
    ]


def _url(protocol: str, settings: FeedSettings) -> str:
    """The user's address for a protocol; ``settings.url`` is that of Coinbase."""
    of_coinbase = settings.url if all_protocols()[protocol].venue == COINBASE else ""
    return settings.urls.get(protocol, of_coinbase)


def decode_any(frame: bytes | str, received: int) -> Frame:
    """Decode a frame of either protocol of Coinbase: Advanced Trade names a ``channel``, Exchange a ``type``.

    Raises:
        MalformedTick: the frame names neither, or nothing in it fits the one it names.
    """
    from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade  # noqa: PLC0415
    from volspike.feeds.venues.coinbase_exchange import decode_exchange  # noqa: PLC0415

    head = decode_json(_HEAD, replace_invalid_numbers(frame) or frame)
    if head.channel is not None:
        return decode_advanced_trade(frame, received)
    if head.type is not None:
        return decode_exchange(frame, received)
    raise MalformedTick("neither a channel nor a type is named")


class _Head(msgspec.Struct, gc=False):
    channel: str | None = None
    type: str | None = None


_HEAD = msgspec.json.Decoder(_Head)
