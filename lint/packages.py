"""Compares the lists of product packages that no tool derives from the folders `*/finetune_*`."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from images.context import image_folders
from lint.problem import ROOT, Problem, product_packages

# The command line runs on the user's machine.
IN_NO_IMAGE = frozenset({"finetune_cli", "finetune_evaluation", "finetune_local"})


def check_packages(root: Path = ROOT) -> Iterator[Problem]:
    """Yield each list that lacks a package or names one that does not exist."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    tool = tomllib.loads(text)["tool"]
    folders = {package.relative_to(root).as_posix() for package in product_packages(root)}
    names = {folder.partition("/")[2] for folder in folders}
    for key, listed, expected in (
        ("[tool.hatch.build.targets.wheel]", tool["hatch"]["build"]["targets"]["wheel"]["packages"],
         folders),
        ("root_packages", _products(tool["importlinter"]["root_packages"]), names),
        ("[[tool.importlinter.contracts]]", _top_layers(tool["importlinter"]), names),
    ):  # fmt: skip
        line = text[: text.index(key)].count("\n") + 1
        for name in sorted(expected - set(listed)):
            yield Problem("pyproject.toml", line, f"{name} is missing in {key}. Add it.")
        for name in sorted(set(listed) - expected):
            yield Problem("pyproject.toml", line, f"{key} names {name}. Remove it.")
    copied = {
        folder
        for copied in image_folders((root / "Dockerfile").read_text(encoding="utf-8")).values()
        for folder in copied
    }
    for folder in sorted(folders):
        if folder.partition("/")[0] not in copied and folder.partition("/")[2] not in IN_NO_IMAGE:
            yield Problem(
                "Dockerfile", 1, f"no image contains {folder}. Add its folder to a COPY line."
            )


def _products(names: list[str]) -> set[str]:
    return {name for name in names if name.startswith("finetune_")}


def _top_layers(importlinter: dict[str, Any]) -> set[str]:
    """The packages in the layers contract that is about whole packages."""
    for contract in importlinter["contracts"]:
        layers = " ".join(contract.get("layers", []))
        if contract["type"] == "layers" and "." not in layers and "containers" not in contract:
            return _products(re.findall(r"\w+", layers))
    return set()
