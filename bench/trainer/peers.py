"""TRL in a virtual environment of its own, with the project's torch and transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.machine import ROOT

TRL = "1.16.0"
SHARED = ("torch", "transformers", "safetensors", "numpy", "tokenizers")


def python() -> Path:
    """Its interpreter. The first call makes the environment, which takes a while."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "finetune-bench" / f"trl-{TRL}"
    interpreter = folder / "bin" / "python"
    made = folder / "made"
    if not made.exists():
        print(f"making {folder}: TRL {TRL} and what it needs", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([uv, "venv", "-q", "--clear", "--python", version, str(folder)], check=True)
        install = [uv, "pip", "install", "-q", "-p", str(interpreter), f"trl=={TRL}", *pins()]
        subprocess.run(install, check=True)
        made.touch()  # an earlier one may have been cut off in the middle
    return interpreter


def pins() -> list[str]:
    """`name==version` of what both sides share."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line.partition("==")[0] in SHARED]
