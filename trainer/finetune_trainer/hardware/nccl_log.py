"""NCCL's choice of a network, from the log that NCCL writes for each rank.

The launcher sets the variables of `settings` unless the user configured NCCL's log, which then goes
where the user wants it, and the choice is not reported.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOG_BYTES = 4 * 2**20  # more of a log is not read

_CHOICE = re.compile(r"NCCL INFO Using network (\S.{0,60}?)\s*$", re.MULTILINE)
_DEVICES = re.compile(r"NCCL INFO NET/\w+ ?: Using ((?:\[\d+\]\S{1,80} ?){1,64})")
_DEVICE = re.compile(r"\[\d+\]([\w.-]+)")


@dataclass(frozen=True)
class NcclNetwork:
    """The network between the nodes that NCCL chose."""

    name: str  # IB, Socket, or that of a plugin, such as AWS Libfabric
    devices: tuple[str, ...] = ()

    @property
    def is_socket(self) -> bool:
        return self.name == "Socket"


def settings(inherited: Mapping[str, str], file: Path) -> dict[str, str]:
    """NCCL's variables for a log of a rank; none if the user set one of them."""
    wanted = {
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,NET",
        "NCCL_DEBUG_FILE": str(file),
    }
    return {} if wanted.keys() & inherited.keys() else wanted


def read_network(file: Path) -> NcclNetwork | None:
    """The network that NCCL chose; None: no log, or one without a choice."""
    try:
        with file.open("rb") as stream:
            text = stream.read(LOG_BYTES).decode(errors="replace")
    except OSError:
        return None
    choice = _CHOICE.search(text)
    if choice is None:
        return None
    name = "".join(letter for letter in choice[1] if letter.isprintable())
    devices: tuple[str, ...] = ()
    for line in _DEVICES.finditer(text):
        if f"NET/{name}" in line[0]:
            devices = tuple(dict.fromkeys(_DEVICE.findall(line[1])))
    return NcclNetwork(name, devices)
