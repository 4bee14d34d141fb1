"""The node's network: one bridge with the node's address, and the way out for pods.

The rule of this room: one link, one nft table, and rules that carry our name, so that `leftovers`
finds all of it.
"""

import subprocess
from collections.abc import Mapping, Sequence

from devcluster import paths

NFT_TABLE = paths.NAME


class NetworkError(Exception):
    """A command of iproute2 or nftables failed; the message is its own."""


def nft_rules() -> str:
    """Pods leave the machine under its own address."""
    return f"""table ip {NFT_TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {paths.POD_NETWORK} oifname != "{paths.BRIDGE}" masquerade
  }}
}}
"""


def accept_rules(filter_rules: str) -> list[tuple[str, ...]]:
    """Rules, as iptables arguments, for chains that drop by default: docker forwards nothing, ufw
    takes nothing.

    `filter_rules` is what `iptables -S` prints.
    """
    matches = (("FORWARD", "-i"), ("FORWARD", "-o"), ("INPUT", "-i"))
    comment = ("-m", "comment", "--comment", paths.NAME, "-j", "ACCEPT")
    policies = filter_rules.splitlines()
    return [
        (chain, direction, paths.BRIDGE, *comment)
        for chain, direction in matches
        if f"-P {chain} DROP" in policies
    ]


def own_rules(filter_rules: str) -> list[tuple[str, ...]]:
    """The rules among `filter_rules` that carry our name, as iptables arguments."""
    lines = [line.split() for line in filter_rules.splitlines()]
    return [tuple(fields[1:]) for fields in lines if fields[0] == "-A" and paths.NAME in fields]


def filter_rules() -> str:
    """What `iptables -S` prints; nothing where iptables isn't installed, as then nobody drops with
    it.
    """
    return run("iptables", "-S", check=False) or ""


def proxy_exceptions(environment: Mapping[str, str]) -> dict[str, str]:
    """What keeps requests within this machine off the proxies that `environment` names, if any."""
    if not any(name.lower() in ("http_proxy", "https_proxy") for name in environment):
        return {}
    present = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    local = ("127.0.0.1", "localhost", paths.POD_NETWORK, paths.SERVICE_NETWORK, ".svc", ".local")
    value = ",".join(filter(None, [present, paths.NODE_ADDRESS, *local]))
    return {"NO_PROXY": value, "no_proxy": value}


def create() -> None:
    address = f"{paths.NODE_ADDRESS}/{paths.POD_PREFIX_LENGTH}"
    run("ip", "link", "add", paths.BRIDGE, "type", "bridge")
    # A Service's reply from a pod on the same bridge must pass connection tracking, or it comes
    # from the wrong address. Set for this bridge only: the setting for all of them would be the
    # machine's. Kernels without it have nothing to set.
    run("ip", "link", "set", paths.BRIDGE, "type", "bridge", "nf_call_iptables", "1", check=False)
    run("ip", "address", "add", address, "dev", paths.BRIDGE)
    run("ip", "link", "set", paths.BRIDGE, "up")
    run("nft", "-f", "-", stdin=nft_rules())
    for rule in accept_rules(filter_rules()):
        run("iptables", "-I", *rule)


def exists() -> bool:
    return run("ip", "link", "show", paths.BRIDGE, check=False) is not None


def run(program: str, *arguments: str, stdin: str = "", check: bool = True) -> str | None:
    """What the command printed. A failure is a NetworkError, or None when `check` is off."""
    command: Sequence[str] = (program, *arguments)
    try:
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        if check:
            raise NetworkError(f"{program} is not installed") from None
        return None
    if result.returncode == 0:
        return result.stdout
    if check:
        raise NetworkError(f"{' '.join(command)}: {result.stderr.strip()}")
    return None
