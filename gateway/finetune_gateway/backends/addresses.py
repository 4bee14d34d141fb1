"""The addresses to which the gateway never connects."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Services of clouds with credentials of the node, at addresses that are not link-local: Alibaba,
# Azure, Oracle, and the IPv6 addresses of AWS and Google.
METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")  # IPv4 in IPv6, as it was before the mapped addresses
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")  # Linux connects some of it to itself
_BROADCAST = ipaddress.ip_address("255.255.255.255")


def refusal(text: str, api_server: frozenset[str], *, is_trusted: bool) -> str | None:
    """Why no connection is made to this address, as a noun phrase; None: there is no reason.

    api_server: the addresses of the API server. is_trusted: an administrator has named the server,
    so that only link-local addresses are refused.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "no IP address"
    kinds = [_kind(one, api_server) for one in (address, *_embedded(address))]
    if is_trusted:
        kinds = [kind for kind in kinds if kind == "a link-local address"]
    return next((kind for kind in kinds if kind is not None), None)


def _kind(address: Address, api_server: frozenset[str]) -> str | None:
    if address.is_link_local:
        return "a link-local address"
    if address in METADATA:
        return "the address of a metadata service"
    if address.is_loopback:
        return "a loopback address"
    if address.is_multicast or address == _BROADCAST:
        return "a multicast address"
    if address.is_unspecified or (address.version == 4 and address in _THIS_NETWORK):
        return "an unspecified address"
    if str(address) in api_server:
        return "the address of the API server"
    return None


def _embedded(address: Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses to which a translator on the way can send this one."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        found += address.teredo
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
