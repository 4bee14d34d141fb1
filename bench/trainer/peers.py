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
    if not interpreter.exists():
        print(f"making {folder}: TRL {TRL} and what it needs", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run([uv, "venv", "-q", "--python", version, str(folder)], check=True)
        pins = (ROOT / "constraints.txt").read_text().splitlines()
        shared = [line for line in pins if line.partition("==")[0] in SHARED]
        install = [uv, "pip", "install", "-q", "-p", str(interpreter), f"trl=={TRL}", *shared]
        subprocess.run(install, check=True)
    return interpreter
