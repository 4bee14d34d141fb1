"""What each image installs."""

import re

import pytest

from images.context import ROOT
from images.requirements import extra_requirements, requirement_files

PYPROJECT = (ROOT / "pyproject.toml").read_text()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def names(lines: str) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", line)[0] for line in lines.splitlines()}


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return requirement_files(PYPROJECT, CONSTRAINTS)


def test_prepare_has_no_torch(files: dict[str, str]) -> None:
    assert not names(files["prepare.txt"]) & {"torch", "deepspeed", "kopf"}


def test_operator_has_neither_torch_nor_s3(files: dict[str, str]) -> None:
    assert not names(files["operator.txt"]) & {"torch", "deepspeed", "boto3", "transformers"}


def test_an_extra_brings_the_extras_it_names_and_the_projects_own(files: dict[str, str]) -> None:
    assert names(files["trainer.txt"]) > names(files["prepare.txt"]) >= {"boto3", "pydantic"}
    assert not any("finetune" in text for text in files.values())


def test_every_dependency_of_an_image_is_pinned(files: dict[str, str]) -> None:
    pinned = names(CONSTRAINTS)
    for extra in ("operator", "prepare", "trainer"):
        assert names(files[f"{extra}.txt"]) <= pinned


def test_the_heavy_layer_is_pinned_and_only_cuda(files: dict[str, str]) -> None:
    lines = files["torch.txt"].splitlines()
    assert "torch" in names(files["torch.txt"])
    assert all("==" in line for line in lines)
    assert all(re.match(r"(torch|triton|nvidia-|cuda-)", line) for line in lines)


def test_an_edit_of_the_tools_settings_changes_no_list(files: dict[str, str]) -> None:
    edited = PYPROJECT + "\n[tool.something]\nline-length = 80\n"
    assert requirement_files(edited, CONSTRAINTS) == files


def test_references_between_extras_are_followed() -> None:
    pyproject = """
[project]
dependencies = ["pydantic"]
[project.optional-dependencies]
a = ["boto3"]
b = ["kopf"]
c = ["finetune-operator[a, b]", "torch"]
"""
    assert extra_requirements(pyproject, "c") == ["boto3", "kopf", "pydantic", "torch"]
