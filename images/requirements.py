"""Computes the packages that each image installs from pyproject.toml and constraints.txt.

This module runs as a script in the Dockerfile's `requirements` stage and is imported for the
content tag, so it uses only the standard library. The layers of an image depend on these lists and
not on the files, so an edit of the linter's settings rebuilds nothing, and a newer pytest does not
rebuild the 4 GB of CUDA libraries.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

EXTRAS = ("operator", "gateway", "prepare", "trainer")

# Installed in a separate layer, without dependencies: 90 % of the trainer image, and unchanged for
# months.
HEAVY = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)")

# Besides torch, the packages that DeepSpeed's setup.py and torch import to compile shm_comm.
WHEEL_BUILD = (
    "annotated-types",
    "einops",
    "filelock",
    "fsspec",
    "hjson",
    "jinja2",
    "markupsafe",
    "mpmath",
    "msgpack",
    "networkx",
    "ninja",
    "numpy",
    "packaging",
    "psutil",
    "py-cpuinfo",
    "pydantic",
    "pydantic-core",
    "setuptools",
    "sympy",
    "tqdm",
    "typing-extensions",
    "typing-inspection",
)

_SELF = re.compile(r"finetune-operator\[([a-z,\s]+)\]")


def locked(constraints: str) -> dict[str, str]:
    """Return the entries of constraints.txt by name: `name==version` and the hashes of its files.

    An entry is one line here. In the file, each hash is on a line of its own.
    """
    lines = (line.split("#")[0].strip() for line in constraints.replace("\\\n", " ").splitlines())
    entries = (" ".join(line.split()) for line in lines)
    return {line.split("==")[0].strip().lower(): line for line in entries if "==" in line}


def pinned_lines(constraints: str) -> dict[str, str]:
    """Return the `name==version` of constraints.txt by name."""
    return {name: line.split(" --hash=")[0] for name, line in locked(constraints).items()}


def extra_requirements(pyproject: str, extra: str) -> list[str]:
    """Return the dependencies of the project and of `extra`, with references to extras resolved."""
    project = tomllib.loads(pyproject)["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    found = set(project["dependencies"])

    def add(requirements: Iterable[str]) -> None:
        for requirement in requirements:
            if own := _SELF.fullmatch(requirement):
                for name in own[1].split(","):
                    add(extras[name.strip()])
            else:
                found.add(requirement)

    add(extras[extra])
    return sorted(found)


def requirement_files(pyproject: str, constraints: str) -> dict[str, str]:
    """Return every list that a layer is built from, by file name."""
    entries = locked(constraints)
    heavy = [line for name, line in entries.items() if HEAVY.fullmatch(name)]
    build = [entries[name] for name in WHEEL_BUILD if name in entries]
    built_here = {"deepspeed": pinned_lines(constraints)["deepspeed"]}  # a wheel that no index has
    lists: dict[str, list[str]] = {
        f"{extra}.txt": extra_requirements(pyproject, extra) for extra in EXTRAS
    }
    lists["torch.txt"] = heavy
    lists["wheel-build.txt"] = build
    lists["deepspeed.txt"] = [entries["deepspeed"]]
    lists["trainer-constraints.txt"] = list((entries | built_here).values())
    return {name: "".join(f"{line}\n" for line in sorted(lines)) for name, lines in lists.items()}


def main() -> None:
    """Write the lists: `python3 requirements.py PYPROJECT CONSTRAINTS FOLDER`."""
    pyproject, constraints, folder = (Path(argument) for argument in sys.argv[1:4])
    folder.mkdir(parents=True, exist_ok=True)
    files = requirement_files(pyproject.read_text(), constraints.read_text())
    for name, text in files.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
