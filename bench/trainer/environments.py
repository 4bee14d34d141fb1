"""The virtual environments of the measured programs: TRL, and the trainer's image.

A development environment would distort the measurement: transformers imports scipy if it is
installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from bench.machine import ROOT
from images.requirements import pinned_lines

TRL = "1.16.0"
SHARED = ("torch", "transformers", "safetensors", "numpy", "tokenizers")
CONSTRAINTS = ROOT / "constraints.txt"


def trl_python() -> Path:
    """The interpreter for TRL. The first call creates the environment, which takes a while."""
    return _environment(f"trl-{TRL}", [f"trl=={TRL}", *pins()])


def trainer_python() -> Path:
    """The interpreter with only the packages of the trainer's image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["prepare"], *extras["trainer"]]
    packages = [name for name in wanted if not name.startswith("finetune-operator")]
    digest = hashlib.sha256(CONSTRAINTS.read_bytes() + repr(packages).encode()).hexdigest()
    return _environment(f"trainer-{digest[:12]}", [*packages, "-c", str(CONSTRAINTS)])


def _environment(name: str, packages: Sequence[str]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "finetune-bench" / name
    interpreter = folder / "bin" / "python"
    made = folder / "made"
    if not made.exists():
        print(f"creating {folder}", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([uv, "venv", "-q", "--clear", "--python", version, str(folder)], check=True)
        install = [uv, "pip", "install", "-q", "-p", str(interpreter), *packages]
        subprocess.run(install, check=True)
        subprocess.run(
            [str(interpreter), "-m", "compileall", "-qq", str(folder / "lib")], check=False
        )
        made.touch()  # the marker is missing if the creation was interrupted
    return interpreter


def pins() -> list[str]:
    """`name==version` of the packages that both environments share."""
    lines = pinned_lines(CONSTRAINTS.read_text())
    return [line for name, line in lines.items() if name in SHARED]
