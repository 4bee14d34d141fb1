"""The tag of an image is the hash of what goes into it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from images.context import FILES, ROOMS, ROOT, content_tag, copy_context


@pytest.fixture
def context(tmp_path: Path) -> Path:
    copy_context(tmp_path)
    return tmp_path


def tags(context: Path) -> dict[str, str]:
    return {image: content_tag(context, image, "base:1") for image in ROOMS}


def changed(context: Path, edit: Callable[[], object]) -> set[str]:
    before = tags(context)
    edit()
    after = tags(context)
    return {image for image in ROOMS if before[image] != after[image]}


def append(path: Path) -> Callable[[], object]:
    return lambda: path.write_text((path.read_text() if path.exists() else "") + "\n# edited\n")


def test_a_changed_room_gives_a_new_tag_to_the_images_that_hold_it(context: Path) -> None:
    assert changed(context, append(context / "operator/finetune_operator/x.py")) == {"operator"}
    assert changed(context, append(context / "trainer/finetune_trainer/x.py")) == {"trainer"}
    assert changed(context, append(context / "data/finetune_data/x.py")) == {"prepare", "trainer"}
    assert changed(context, append(context / "api/finetune_api/x.py")) == set(ROOMS)


def test_the_tools_settings_change_no_tag(context: Path) -> None:
    assert changed(context, append(context / "pyproject.toml")) == set()


def test_the_dockerfile_and_the_pins_change_every_tag(context: Path) -> None:
    assert changed(context, append(context / "Dockerfile")) == set(ROOMS)
    assert changed(context, append(context / "constraints.txt")) == set(ROOMS)


def test_another_base_gives_another_tag(context: Path) -> None:
    for image in ROOMS:
        assert content_tag(context, image, "base:1") != content_tag(context, image, "base:2")


def test_bytecode_never_reaches_the_context(context: Path) -> None:
    assert not [*context.rglob("__pycache__"), *context.rglob("*.pyc")]


def test_the_context_is_what_dockerignore_lets_through() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    rooms = {room for rooms in ROOMS.values() for room in rooms}
    assert allowed == rooms | (set(FILES) - {"Dockerfile", ".dockerignore"})


def test_the_sources_are_the_dockerfiles_last_layer() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for image, rooms in ROOMS.items():
        stage = text.split(f" AS {image}\n")[1].split("\nFROM ")[0].split("\n# ---")[0]
        last = [line for line in stage.splitlines() if line and not line.startswith("#")][-1]
        folders = " ".join(room.split("/")[0] for room in rooms)
        assert last == f"COPY {folders} /app/"
        assert "USER 65532:65532" in stage
