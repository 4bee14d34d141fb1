"""What goes into an image: a copy of the sources as they are now, and the hash that is its tag."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from images.requirements import requirement_files

ROOT = Path(__file__).resolve().parent.parent

# Which rooms an image holds, as in the Dockerfile's last lines.
ROOMS = {
    "operator": ("api/finetune_api", "operator/finetune_operator"),
    "prepare": ("api/finetune_api", "storage/finetune_storage", "data/finetune_data"),
    "trainer": (
        "api/finetune_api",
        "storage/finetune_storage",
        "data/finetune_data",
        "trainer/finetune_trainer",
    ),
}
FILES = (
    ".dockerignore",
    "Dockerfile",
    "constraints.txt",
    "images/install.sh",
    "images/requirements.py",
    "pyproject.toml",
)
_UNWANTED = shutil.ignore_patterns("__pycache__", "*.pyc")


def copy_context(target: Path) -> None:
    """Copy what a build reads to `target`: edits during a build of minutes change nothing in it."""
    for name in FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    for room in sorted({room for rooms in ROOMS.values() for room in rooms}):
        if not (ROOT / room).is_dir():
            raise FileNotFoundError(f"{room}/ is missing: is this a whole checkout?")
        shutil.copytree(ROOT / room, target / room, ignore=_UNWANTED)


def content_tag(context: Path, image: str, base: str) -> str:
    """The first 12 digits of the hash of all that decides the image's content."""
    lists = requirement_files(
        (context / "pyproject.toml").read_text(), (context / "constraints.txt").read_text()
    )
    digest = hashlib.sha256()

    def add(name: str, content: bytes) -> None:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)

    add("base", base.encode())
    for name in ("Dockerfile", "constraints.txt", "images/install.sh"):
        add(name, (context / name).read_bytes())
    for name in (f"{image}.txt", *(("torch.txt", "deepspeed.txt") if image == "trainer" else ())):
        add(name, lists[name].encode())
    for room in ROOMS[image]:
        for path in sorted(path for path in (context / room).rglob("*") if path.is_file()):
            add(path.relative_to(context).as_posix(), path.read_bytes())
    return digest.hexdigest()[:12]
