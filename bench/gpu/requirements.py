"""Checks that a machine has what the parts import, and names all that is missing at once.

The machine needs a checkout and no installation of this project: its packages are found through
PYTHONPATH, which the program sets for its processes.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu.device import environment, find_card
from images.requirements import pinned_lines

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
# Modules that the parts import, directly or through a library, and their distributions. boto3 is
# not among them, because the object storage is a folder of the machine.
MODULES = {
    "torch": "torch",
    "numpy": "numpy",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface-hub",
    "peft": "peft",
    "accelerate": "accelerate",
    "deepspeed": "deepspeed",
    "hjson": "hjson",
    "einops": "einops",
    "msgpack": "msgpack",
    "ninja": "ninja",
    "cpuinfo": "py-cpuinfo",
    "psutil": "psutil",
    "tqdm": "tqdm",
    "packaging": "packaging",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_extensions": "typing-extensions",
    "typing_inspection": "typing-inspection",
    "orjson": "orjson",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
    "prometheus_client": "prometheus-client",
    "yaml": "pyyaml",
    "regex": "regex",
}
SHOWN = ("torch", "transformers", "deepspeed", "peft", "triton", "trl")


def missing(modules: Iterable[str] = tuple(MODULES)) -> list[str]:
    """The distributions of the modules that cannot be found, as `name==version` where pinned."""
    pinned = pins()
    names = [MODULES[module] for module in modules if find_spec(module) is None]
    return [f"{name}=={pinned[name]}" if name in pinned else name for name in names]


def pins() -> dict[str, str]:
    """The versions in constraints.txt, by distribution."""
    lines = pinned_lines(CONSTRAINTS.read_text())
    return {name: line.partition("==")[2].partition(";")[0].strip() for name, line in lines.items()}


def versions() -> dict[str, str]:
    """The versions of the libraries that matter for a result."""
    found = {"python": platform.python_version()}
    for name in SHOWN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def observe(python_path: str, *, is_rehearsal: bool) -> dict[str, Any]:
    """The machine as a process of a part sees it: `missing`, or `card` and `versions`.

    Raises RuntimeError with the reason if the libraries cannot be imported or there is no GPU.
    """
    import os

    found = subprocess.run(
        [sys.executable, "-m", "bench.gpu.requirements", *(["--rehearse"] if is_rehearsal else [])],
        env={
            **os.environ,
            **environment(is_rehearsal=is_rehearsal),
            "PYTHONPATH": python_path,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise RuntimeError((found.stderr.strip() or "no output").splitlines()[-1])
    values: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return values


def main() -> None:
    """Print what this machine has as one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    absent = missing()
    if absent:
        print(json.dumps({"missing": absent}))
        return
    try:
        card = find_card(is_rehearsal=options.rehearse)
    except RuntimeError as error:
        sys.exit(str(error))
    print(json.dumps({"missing": [], "card": card, "versions": versions()}))


if __name__ == "__main__":
    main()
