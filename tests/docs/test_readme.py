"""The commands, manifests, and links of the Markdown files at the top of the repository."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from finetune_api.crd import finetune_crd
from finetune_api.finetune_spec import FineTuneSpec
from tests.docs.blocks import ROOT, Block, read_blocks
from tests.docs.programs import KNOWN, command_lines, finetune_problem

FILES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
BLOCKS = [
    (name, block)
    for name in FILES
    for block in read_blocks((ROOT / name).read_text(encoding="utf-8"), name)
]
PROGRAMS = KNOWN | {"kind", "python", ".venv/bin/python", ".venv/bin/pre-commit", ".venv/bin/ruff"}


def label(item: object) -> str:
    return f"{item.page}:{item.line}" if isinstance(item, Block) else ""


@pytest.mark.parametrize(
    ("name", "block"), [item for item in BLOCKS if item[1].is_command], ids=label
)
def test_every_program_option_and_target_exists(name: str, block: Block) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in command_lines(re.sub(r"\s+# .*", "", block.text)):
        where = f"{name}:{block.line}: {' '.join(words)}"
        assert words[0] in PROGRAMS, where
        if words[0] == "finetune":
            assert finetune_problem(words) is None, where
        if words[0] == "make":
            assert set(words[1:]) <= targets, where


def test_the_manifest_of_the_readme_is_valid() -> None:
    (block,) = [block for name, block in BLOCKS if block.language == "yaml" and name == "README.md"]
    manifest = yaml.safe_load(block.text)
    (version,) = finetune_crd()["spec"]["versions"]
    jsonschema.validate(manifest, version["schema"]["openAPIV3Schema"])
    FineTuneSpec.model_validate(manifest["spec"])


@pytest.mark.parametrize("name", FILES)
def test_every_linked_file_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / target).exists(), f"{name}: {target}"


PYTHON_FILES = [path.as_posix() for path in ROOT.glob("[a-z]*/**/*.py")]
PROSE = [ROOT / name for name in FILES] + sorted((ROOT / "docs" / "decisions").glob("*.md"))


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_every_named_python_file_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in set(re.findall(r"[\w./-]+\.py\b", text)) - {"__init__.py", "NAME.py"}:
        assert any(found.endswith(f"/{name}") for found in PYTHON_FILES), f"{path.name}: {name}"
