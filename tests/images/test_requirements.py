"""What each image installs."""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from images.context import ROOT
from images.requirements import (
    EXTRAS,
    extra_requirements,
    locked,
    pinned_lines,
    requirement_files,
)

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


def test_the_gateway_has_s3_and_neither_kopf_nor_what_reads_data(files: dict[str, str]) -> None:
    found = names(files["gateway.txt"])
    assert found >= {"aiohttp", "boto3", "orjson", "prometheus-client", "pydantic", "pyyaml"}
    assert not found & {"kopf", "kubernetes", "torch", "transformers", "pyarrow", "numpy"}


def test_an_extra_brings_the_extras_it_names_and_the_projects_own(files: dict[str, str]) -> None:
    assert names(files["trainer.txt"]) > names(files["prepare.txt"]) >= {"boto3", "pydantic"}
    assert not any("finetune" in text for text in files.values())


def test_every_dependency_of_an_image_is_pinned(files: dict[str, str]) -> None:
    pinned = names(CONSTRAINTS)
    for extra in EXTRAS:
        assert names(files[f"{extra}.txt"]) <= pinned


def test_the_heavy_layer_is_pinned_and_only_cuda(files: dict[str, str]) -> None:
    lines = files["torch.txt"].splitlines()
    assert "torch" in names(files["torch.txt"])
    assert all("==" in line for line in lines)
    assert all(re.match(r"(torch|triton|nvidia-|cuda-)", line) for line in lines)


def test_every_locked_file_has_its_hash(files: dict[str, str]) -> None:
    """The wheel of DeepSpeed that an image builds has none, because no index has it."""
    assert len(locked(CONSTRAINTS)) == CONSTRAINTS.count("==") > 100
    for name in ("torch.txt", "wheel-build.txt", "deepspeed.txt", "trainer-constraints.txt"):
        without = {line for line in files[name].splitlines() if "--hash=sha256:" not in line}
        built = {pinned_lines(CONSTRAINTS)["deepspeed"]}
        assert without == (built if name == "trainer-constraints.txt" else set())


@pytest.mark.parametrize("is_right", [True, False])
def test_a_file_with_another_hash_is_not_installed(tmp_path: Path, is_right: bool) -> None:
    """`uv` checks the hashes of constraints, and the Dockerfile installs with `-c`."""
    wheel = tmp_path / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("small.py", "")
        archive.writestr("small-1.0.dist-info/METADATA", "Name: small\nVersion: 1.0\n")
        archive.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("small-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes() + (b"" if is_right else b"x")).hexdigest()
    constraints = f"small==1.0 \\\n    --hash=sha256:{digest}\n"
    (tmp_path / "constraints.txt").write_text(constraints)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("uv")), "pip", "install", "small", "-q"),
            *("-c", str(tmp_path / "constraints.txt"), "--target", str(tmp_path / "target")),
            *("--no-index", "--find-links", str(tmp_path), "--no-cache"),
            *("--python", sys.executable),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) == is_right, done.stderr
    assert (tmp_path / "target/small.py").exists() == is_right
    if not is_right:
        assert "hash mismatch" in done.stderr.lower()


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
