"""The digests of base images: a file of build inputs, which `python3 -m images pin` writes.

An entry has the reference of a base image, exactly as a build names it, and the digest that its
registry has served. Commit the file. Nothing else writes it, and no digest has another origin.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from images.context import ROOT
from images.digests import resolve_digest
from images.progress import say
from images.references import DIGEST, BaseImageError, parse_reference, split_digest

FILE = ROOT / "images" / "base-digests.json"
_DEFAULT = re.compile(r"^ARG BASE=(\S+)$", re.MULTILINE)


def dockerfile_base() -> str:
    """Return the base image of a build with Docker: the default in the Dockerfile."""
    found = _DEFAULT.search((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    if found is None:
        raise BaseImageError("the Dockerfile has no line `ARG BASE=IMAGE`. Use --base IMAGE.")
    return found[1]


def read_pins() -> dict[str, str]:
    """Return the digests by reference; none without a file.

    Raise BaseImageError if the file is broken.
    """
    try:
        found = json.loads(FILE.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise BaseImageError(
            f"{FILE}: {error}. Fix the file, or delete it and pin again."
        ) from None
    if not isinstance(found, dict):
        raise BaseImageError(f"{FILE} is not a JSON object. Delete it and pin again.")
    for name, digest in found.items():
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise BaseImageError(
                f"{FILE}: the entry {name!r} has no digest of the form sha256:HEX. Delete the "
                f"entry, and run `{pin_command(name)}`."
            )
    return found


def pin(name: str) -> str:
    """Write the digest of a base image into the file and return it.

    Raise BaseImageError, and leave the file as it is, unless the registry has answered.
    """
    pins = read_pins()
    found = resolve_digest(parse_reference(name))
    if not found.is_index:
        say(f"{name} has one platform: the digest is that of its manifest, not of an index")
    if pins.get(name) == found.digest:
        say(f"{FILE} has this digest")
        return found.digest
    entries = dict(sorted({**pins, name: found.digest}.items()))
    _replace(FILE, json.dumps(entries, indent=2) + "\n")
    say(f"wrote {FILE}. Commit it: builds use the digest")
    return found.digest


def pinned(name: str, pins: Mapping[str, str]) -> str:
    """Return `NAME:TAG@DIGEST` if there is an entry for exactly this reference, and else `name`."""
    return f"{name}@{pins[name]}" if name in pins else name


def base_for_build(name: str) -> str:
    """Return the base image with its digest, if it has one; say so if it has none."""
    base = pinned(name, read_pins())
    if note := unpinned_note(base):
        say(note)
    return base


def unpinned_note(base: str) -> str:
    """One line on a base image without a digest. Empty for one with a digest, or a local one."""
    if split_digest(base)[1] or base.startswith("localhost/"):
        return ""
    return f"the base image {base} is not pinned: run `{pin_command(base)}`"


def pin_command(name: str) -> str:
    """Return the command that pins a base image."""
    return f"python3 -m images pin {shlex.quote(name)}"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object without repeated names, of which a merge in Git can leave two."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an entry occurs twice")
    return found


def _replace(file: Path, text: str) -> None:
    """Write a file at once: an interrupted command leaves the former one."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as written:
            written.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
