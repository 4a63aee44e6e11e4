"""Who a request comes from, as far as the server can tell: the other end of its connection."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Final

from starlette.types import Scope

_NETWORK_BITS: Final = 64


def client_of(scope: Scope) -> str:
    """The client's IPv4 address, or the /64 network of its IPv6 address, which one household has whole.

    Behind a proxy that is trusted (see ``ServingSettings``) it is who the proxy says; empty where nobody knows.

    >>> client_of({"client": ("192.0.2.7", 1234)}), client_of({"client": ("2001:db8::1", 1)}), client_of({})
    ('192.0.2.7', '2001:db8::/64', '')
    """
    client = scope.get("client")
    if client is None:
        return ""
    address: str = client[0]
    return _network_of(address) if ":" in address else address


def _network_of(address: str) -> str:
    try:
        found = IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    kept = int(found) >> _NETWORK_BITS << _NETWORK_BITS
    return f"{IPv6Address(kept)}/{_NETWORK_BITS}"
