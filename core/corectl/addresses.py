"""Which addresses are on the internet; all others are this machine, or a network that is somebody's own."""

from __future__ import annotations

import ipaddress

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The part of IPv6 that addresses of hosts on the internet are given out from."""


def is_public(text: str) -> bool:
    """Whether an address, as the system writes it, is that of a single host on the internet.

    One of IPv6 that leads to one of IPv4 (mapped, translated by NAT64, or 6to4) is what that one is.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is None:
            return address in _UNICAST and address.is_global
        address = inner
    return address.is_global and not address.is_multicast


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
