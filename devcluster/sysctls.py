"""Kernel settings that the cluster changes, and their original values.

An existing record is never overwritten: after a killed instance, only this record has the original
values of the machine.
"""

import json
from pathlib import Path

ROOT = Path("/proc/sys")

# ip_forward is for packets of pods; the kubelet sets the others at its start
CHANGED = (
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def save(record: Path, root: Path = ROOT) -> None:
    if record.exists():
        return
    values = {name: (root / name).read_text().strip() for name in CHANGED if (root / name).exists()}
    record.write_text(json.dumps(values, indent=1))


def restore(record: Path, root: Path = ROOT) -> None:
    if not record.exists():
        return
    for name, value in json.loads(record.read_text()).items():
        path = root / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            print(f"Could not restore {name} to {value}: {error}")
    record.unlink()


def forward_packets() -> None:
    path = ROOT / "net/ipv4/ip_forward"
    if path.read_text().strip() != "1":
        path.write_text("1")
