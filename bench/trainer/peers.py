"""Virtual environments of their own: TRL with our torch, and the packages of the trainer's image.

What a development environment holds besides would count: transformers imports scipy where it is.
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

TRL = "1.16.0"
SHARED = ("torch", "transformers", "safetensors", "numpy", "tokenizers")
CONSTRAINTS = ROOT / "constraints.txt"


def python() -> Path:
    """TRL's interpreter. The first call makes the environment, which takes a while."""
    return _environment(f"trl-{TRL}", [f"trl=={TRL}", *pins()])


def our_python() -> Path:
    """One with what the trainer's image has, and nothing else."""
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
        print(f"making {folder}", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([uv, "venv", "-q", "--clear", "--python", version, str(folder)], check=True)
        install = [uv, "pip", "install", "-q", "-p", str(interpreter), *packages]
        subprocess.run(install, check=True)
        subprocess.run(
            [str(interpreter), "-m", "compileall", "-qq", str(folder / "lib")], check=False
        )
        made.touch()  # an earlier one may have been cut off in the middle
    return interpreter


def pins() -> list[str]:
    """`name==version` of what both sides share."""
    lines = CONSTRAINTS.read_text().splitlines()
    return [line for line in lines if line.partition("==")[0] in SHARED]
