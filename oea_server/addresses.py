"""Names of hosts: which of them are addresses, and which of them mean this machine."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


def address(text: str) -> Address | None:
    """The address that a text is, that of IPv4 where one of IPv6 only holds it; None for a name."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_localhost(name: str) -> bool:
    """Whether a name, in small letters, is this machine's on every machine."""
    return name == "localhost" or name.endswith(".localhost")
