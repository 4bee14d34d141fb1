"""The network of the node: a bridge with its address, and the route to the outside for pods.

The link, the nft table, and the rules have the name of the cluster, so that `leftovers` finds them.
"""

import subprocess
from collections.abc import Mapping, Sequence

from devcluster import paths

NFT_TABLE = paths.NAME


class NetworkError(Exception):
    """A command of iproute2 or nftables failed; the message has its output."""


def nft_rules() -> str:
    """Rules that give outgoing packets of pods the address of the machine."""
    return f"""table ip {NFT_TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {paths.POD_NETWORK} oifname != "{paths.BRIDGE}" masquerade
  }}
}}
"""


def accept_rules(filter_rules: str) -> list[tuple[str, ...]]:
    """Rules (iptables arguments) for chains with the policy DROP, as docker and ufw set it.

    filter_rules: the output of `iptables -S`.
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
    """The rules of this cluster in `filter_rules`, as iptables arguments."""
    lines = [line.split() for line in filter_rules.splitlines()]
    return [tuple(fields[1:]) for fields in lines if fields[0] == "-A" and paths.NAME in fields]


def filter_rules() -> str:
    """The output of `iptables -S`; empty without iptables, because then it drops no packets."""
    return run("iptables", "-S", check=False) or ""


def proxy_exceptions(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep local requests away from the proxies in `environment`, if any."""
    if not any(name.lower() in ("http_proxy", "https_proxy") for name in environment):
        return {}
    present = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    local = ("127.0.0.1", "localhost", paths.POD_NETWORK, paths.SERVICE_NETWORK, ".svc", ".local")
    value = ",".join(filter(None, [present, paths.NODE_ADDRESS, *local]))
    return {"NO_PROXY": value, "no_proxy": value}


def create() -> None:
    address = f"{paths.NODE_ADDRESS}/{paths.POD_PREFIX_LENGTH}"
    run("ip", "link", "add", paths.BRIDGE, "type", "bridge")
    # The reply of a Service from a pod on the same bridge must pass connection tracking, or it has
    # the wrong address. The setting is for this bridge only, because the global one belongs to the
    # machine. Some kernels do not have it.
    run("ip", "link", "set", paths.BRIDGE, "type", "bridge", "nf_call_iptables", "1", check=False)
    run("ip", "address", "add", address, "dev", paths.BRIDGE)
    run("ip", "link", "set", paths.BRIDGE, "up")
    run("nft", "-f", "-", stdin=nft_rules())
    for rule in accept_rules(filter_rules()):
        run("iptables", "-I", *rule)


def exists() -> bool:
    return run("ip", "link", "show", paths.BRIDGE, check=False) is not None


def run(program: str, *arguments: str, stdin: str = "", check: bool = True) -> str | None:
    """Run a command and return its output. Raises NetworkError, or returns None without `check`."""
    command: Sequence[str] = (program, *arguments)
    try:
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        if check:
            raise NetworkError(f"{program} is not installed.") from None
        return None
    if result.returncode == 0:
        return result.stdout
    if check:
        raise NetworkError(f"{' '.join(command)}: {result.stderr.strip()}")
    return None
