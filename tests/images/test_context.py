"""The tag of an image is the hash of what goes into it."""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from images.context import (
    FILES,
    IMAGES,
    ROOT,
    content_tag,
    copy_context,
    image_folders,
    packages_of,
)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    copy_context(tmp_path)
    return tmp_path


def tags(context: Path) -> dict[str, str]:
    return {image: content_tag(context, image, "base:1") for image in IMAGES}


def changed(context: Path, edit: Callable[[], object]) -> set[str]:
    before = tags(context)
    edit()
    after = tags(context)
    return {image for image in IMAGES if before[image] != after[image]}


def append(path: Path) -> Callable[[], object]:
    return lambda: path.write_text((path.read_text() if path.exists() else "") + "\n# edited\n")


def test_a_changed_package_changes_the_tags_of_the_images_that_contain_it(context: Path) -> None:
    assert changed(context, append(context / "operator/finetune_operator/x.py")) == {"operator"}
    assert changed(context, append(context / "trainer/finetune_trainer/x.py")) == {"trainer"}
    assert changed(context, append(context / "data/finetune_data/x.py")) == {"prepare", "trainer"}
    assert changed(context, append(context / "gateway/finetune_gateway/x.py")) == {"gateway"}
    with_s3 = set(IMAGES) - {"operator"}
    assert changed(context, append(context / "storage/finetune_storage/x.py")) == with_s3
    assert changed(context, append(context / "api/finetune_api/x.py")) == set(IMAGES)


def test_the_tools_settings_change_no_tag(context: Path) -> None:
    assert changed(context, append(context / "pyproject.toml")) == set()


def test_the_dockerfile_and_the_pins_change_every_tag(context: Path) -> None:
    assert changed(context, append(context / "Dockerfile")) == set(IMAGES)
    assert changed(context, append(context / "constraints.txt")) == set(IMAGES)


def test_another_base_gives_another_tag(context: Path) -> None:
    for image in IMAGES:
        assert content_tag(context, image, "base:1") != content_tag(context, image, "base:2")


def test_bytecode_never_reaches_the_context(context: Path) -> None:
    assert not [*context.rglob("__pycache__"), *context.rglob("*.pyc")]


def is_ignored(path: str) -> bool:
    """Whether .dockerignore excludes a file: the last pattern that matches it or a parent wins."""
    names = [path, *(parent.as_posix() for parent in PurePosixPath(path).parents)][:-1]
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?")
        pattern = pattern.replace(r"\*", "[^/]*")
        if not line.startswith("#") and any(re.fullmatch(pattern, name) for name in names):
            ignored = not line.startswith("!")
    return ignored


def test_dockerignore_lets_through_what_the_builds_copy_and_no_other_folder() -> None:
    for name in FILES:
        assert not is_ignored(name), name
    for image in IMAGES:
        for package in packages_of(image):
            folder = package.relative_to(ROOT).as_posix()
            assert not is_ignored(f"{folder}/__init__.py")
            assert is_ignored(f"{folder}/__pycache__/__init__.pyc")
    for other in (".git/config", ".venv/bin/python", "tests/conftest.py", "docs/img/report.png"):
        assert is_ignored(other), other


def test_the_images_are_the_stages_that_copy_sources() -> None:
    assert set(IMAGES) == {"operator", "gateway", "prepare", "trainer"}
    text = "FROM ${BASE} AS base\nCOPY x /y/\nFROM base AS gateway\nCOPY api gateway /app/\n"
    assert image_folders(text) == {"gateway": ("api", "gateway")}


def test_the_sources_are_the_dockerfiles_last_layer() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for image, folders in IMAGES.items():
        stage = text.split(f" AS {image}\n")[1].split("\nFROM ")[0].split("\n# ---")[0]
        last = [line for line in stage.splitlines() if line and not line.startswith("#")][-1]
        assert last == f"COPY {' '.join(folders)} /app/"
        assert "USER 65532:65532" in stage
