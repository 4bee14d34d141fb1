"""Builds the base image from Debian packages, for machines that reach no image registry."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from images.progress import run, say
from images.tools import image_id, require

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv")
EXCLUDED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
DPKG_OPTIONS = (
    *(f"path-exclude={path}" for path in EXCLUDED),
    "path-include=/usr/share/doc/*/copyright",
)


def base_reference() -> str:
    """Return the name of the base image; its tag is a hash of the recipe."""
    recipe = "\n".join((SUITE, *PACKAGES, *DPKG_OPTIONS))
    return f"localhost/finetune-base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def build_base(environment: dict[str, str], *, again: bool = False) -> str:
    """Build the base image if it is missing (about 80 s) and return its reference."""
    reference = base_reference()
    if not again and image_id(reference, environment):
        say(f"base: {reference} exists")
        return reference
    require("mmdebstrap")
    say(f"base: Debian {SUITE} with {', '.join(PACKAGES)}")
    with tempfile.TemporaryDirectory(prefix="finetune-base-") as folder:
        archive = Path(folder) / "base.tar"
        options = [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
        run(
            "base",
            ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", *options, SUITE,
             archive],
            shown=lambda line: line.startswith("I: "),
        )  # fmt: skip
        container = run("base", ["buildah", "from", "scratch"], env=environment)[-1]
        try:
            run("base: import", ["buildah", "add", container, archive, "/"], env=environment)
            run("base: commit", ["buildah", "commit", container, reference], env=environment)
        finally:
            run("base: clean", ["buildah", "rm", container], env=environment)
    say(f"base: {reference}")
    return reference
