"""The build context of an image: a copy of the sources, and the content hash that is its tag."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from images.requirements import requirement_files

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    ".dockerignore",
    "Dockerfile",
    "constraints.txt",
    "images/install.sh",
    "images/requirements.py",
    "pyproject.toml",
)
_UNWANTED = shutil.ignore_patterns("__pycache__", "*.pyc")
_STAGE = re.compile(r"^FROM \S+ AS (\S+)$", re.MULTILINE)
_SOURCES = re.compile(r"^COPY ([\w ]+) /app/$", re.MULTILINE)


def image_folders(dockerfile: str) -> dict[str, tuple[str, ...]]:
    """Return the images of a Dockerfile, each with the folders that it copies to /app."""
    parts = _STAGE.split(dockerfile)
    stages = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {
        stage: tuple(found[1].split())
        for stage, text in stages.items()
        if (found := _SOURCES.search(text))
    }


IMAGES = image_folders((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def packages_of(image: str, root: Path = ROOT) -> list[Path]:
    """Return the product packages in an image: the `finetune_*` of each folder that it copies."""
    packages = []
    for folder in IMAGES[image]:
        found = sorted((root / folder).glob("finetune_*"))
        if not found:
            raise FileNotFoundError(f"{folder}/finetune_*: missing. Use a complete checkout.")
        packages += found
    return packages


def copy_context(target: Path) -> None:
    """Copy all inputs of a build to `target`, so that edits during the build do not affect it."""
    for name in FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    for package in sorted({package for image in IMAGES for package in packages_of(image)}):
        shutil.copytree(package, target / package.relative_to(ROOT), ignore=_UNWANTED)


def content_tag(context: Path, image: str, base: str) -> str:
    """Return the first 12 digits of the SHA-256 of everything that decides an image's content."""
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
    for package in packages_of(image, context):
        for path in sorted(path for path in package.rglob("*") if path.is_file()):
            add(path.relative_to(context).as_posix(), path.read_bytes())
    return digest.hexdigest()[:12]
