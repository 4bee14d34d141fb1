"""Collects wheels for a machine that has torch and a GPU, but no network.

`python -m bench.gpu` names on that machine what it lacks. Give these names to this program on a
machine with a network, carry the folder, and install it there without dependencies.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.gpu.requirements import MODULES, pins
from bench.trainer.environments import TRL

# Usual on a machine for training, or too large to carry.
USUAL = {"torch", "numpy", "transformers", "tokenizers", "safetensors", "huggingface-hub"}
USUAL |= {"peft", "accelerate", "pyyaml", "regex", "tqdm", "packaging", "ninja"}
FOR_TRL = ("datasets", "dill", "multiprocess", "xxhash")
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


def usual_names() -> list[str]:
    """What a machine for training usually lacks, with the versions of constraints.txt."""
    pinned = pins()
    names = [name for name in MODULES.values() if name not in USUAL]
    return [f"{name}=={pinned[name]}" if name in pinned else name for name in names]


def names_for_trl(python_version: str) -> list[str]:
    """TRL, and those of its dependencies that no other part needs, as uv resolves them."""
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "compile", "-q", "--no-header", "--no-annotate"]
    found = subprocess.run(
        [*command, "--no-emit-index-url", "--python-version", python_version, "-"],
        input=f"trl=={TRL}\n",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wanted = {"trl", *FOR_TRL}
    return [line for line in found.stdout.splitlines() if line.partition("==")[0] in wanted]


def collect(folder: Path, names: Sequence[str], *, python_version: str, machine: str) -> None:
    """Download a wheel of each, or build it if it is pure Python. Raises CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    platforms = [part for name in PLATFORMS for part in ("--platform", f"{name}_{machine}")]
    for name in names:
        download = [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        download += ["--python-version", python_version, "--implementation", "cp", *platforms]
        if not subprocess.run([*download, name], capture_output=True, check=False).returncode:
            continue
        print(f"{name} has no wheel and is built here", flush=True)
        before = set(folder.glob("*.whl"))
        build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
        subprocess.run([*build, name], check=True)
        for path in set(folder.glob("*.whl")) - before:
            if not path.name.endswith("-none-any.whl"):
                sys.exit(f"{path.name} runs only on machines like this one. Build it there.")


def main() -> None:
    """Collect wheels in a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.wheels",
        description="Collect wheels for a GPU machine without a network.",
        epilog="There: python3 -m pip install --no-index --no-deps --target site FOLDER/*.whl, "
        "and then PYTHONPATH=site python3 -m bench.gpu in a checkout.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "names", nargs="*", help="NAME==VERSION (default: what such a machine usually lacks)"
    )
    parser.add_argument("--python", default="3.12", help="version of Python there (default: 3.12)")
    parser.add_argument("--machine", default="x86_64", help="as uname -m prints it there")
    parser.add_argument("--without-trl", action="store_true", help="leave out TRL")
    options = parser.parse_args()
    names = options.names or usual_names()
    if not options.names and not options.without_trl:
        names += names_for_trl(options.python)
    collect(options.folder, names, python_version=options.python, machine=options.machine)
    wheels = sorted(options.folder.glob("*.whl"))
    size = sum(path.stat().st_size for path in wheels) / 1e6
    print(f"{len(wheels)} wheels, {size:.0f} MB, in {options.folder}")


if __name__ == "__main__":
    main()
