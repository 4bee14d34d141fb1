"""`python3 -m images`: build the images, push them, and print their references."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import urllib.error
from pathlib import Path

from images.advisories import ENVIRONMENT, NotCheckedError, find_advisories
from images.base import base_reference, build_base
from images.build import build_image
from images.context import IMAGES, content_tag, copy_context
from images.pins import FILE, base_for_build, dockerfile_base, pin
from images.progress import CommandError, run, say
from images.provenance import docker_arguments
from images.references import BaseImageError
from images.registry import push_image
from images.sbom import bill, mounted, packages_below
from images.tools import buildah_environment, image_id, require

EPILOG = """\
examples:
  python3 -m images build                                   build all four into buildah's storage
  python3 -m images build --only operator                   build one of them
  python3 -m images build --push 127.0.0.1:5000 --out f.json  push, and write references to f.json
  python3 -m images pin docker.io/library/python:3.12-slim  pin a base image to its current digest
  python3 -m images build --base docker.io/library/python:3.12-slim --push registry.example.com/team

The tag is a hash of the sources, dependency lists, Dockerfile, and base. An image that exists under
its tag is neither built nor pushed again. A code change rebuilds only the last layer. Progress goes
to stderr and references to stdout. With docker or podman, you do not need `build`:
docker build --target operator|gateway|prepare|trainer . $(python3 -m images docker-arguments)
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="python3 -m images",
        description="Build the project's container images with buildah and push them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    build = commands.add_parser(
        "build", help="build the images, and the base image if it is missing",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    build.add_argument(
        "--only", metavar="NAMES", type=_names, default=list(IMAGES),
        help=f"comma-separated names: {', '.join(IMAGES)} (default: all)",
    )  # fmt: skip
    build.add_argument(
        "--push", metavar="REGISTRY",
        help="push to REGISTRY[/PATH]; uses plain HTTP for a loopback address",
    )  # fmt: skip
    build.add_argument("--tag", help="use this tag instead of the content hash")
    build.add_argument(
        "--base", metavar="IMAGE",
        help="use any Debian with Python 3.11 or later, by its digest if it is pinned (default: "
        "built from Debian packages)",
    )  # fmt: skip
    build.add_argument(
        "--again",
        action="store_true",
        help="build even if the tag exists, for example after `base --again`",
    )
    build.add_argument("--out", metavar="FILE", type=Path, help="write the references as JSON")

    base = commands.add_parser("base", help="build the base image from Debian packages")
    base.add_argument(
        "--again", action="store_true", help="build even if it exists, with current packages"
    )

    sbom = commands.add_parser(
        "sbom", help="list the packages in built images, and check them for known vulnerabilities"
    )
    sbom.add_argument(
        "--only", metavar="NAMES", type=_names, default=list(IMAGES),
        help=f"comma-separated names: {', '.join(IMAGES)} (default: all)",
    )  # fmt: skip
    sbom.add_argument(
        "--folder", metavar="FOLDER", type=Path, default=Path("sbom"),
        help="write IMAGE.cdx.json (CycloneDX) to this folder (default: %(default)s)",
    )  # fmt: skip
    sbom.add_argument(
        "--base",
        metavar="IMAGE",
        help="base of the build (default: built from Debian packages)",
    )
    sbom.add_argument(
        "--advisories", metavar="URL", default=os.environ.get(ENVIRONMENT),
        help=f"server with the API of OSV (default: ${ENVIRONMENT}); without one, the images are "
        "not checked, and the exit code is 1",
    )  # fmt: skip

    tags = commands.add_parser("tags", help="print the references that a build would produce")
    tags.add_argument(
        "--base", metavar="IMAGE", help="base of the build (default: built from Debian packages)"
    )
    _add_pin_commands(commands)
    return top


def _add_pin_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pinning = commands.add_parser(
        "pin", help="ask the registry for the digest of a base image, for all later builds",
        description=f"Ask the registry for the current digest of a base image and write it to "
        f"images/{FILE.name}, which builds read. Commit this file.",
    )  # fmt: skip
    pinning.add_argument(
        "image", metavar="IMAGE", nargs="?",
        help="[REGISTRY/]NAME:TAG (default: the base in the Dockerfile)",
    )  # fmt: skip
    arguments = commands.add_parser(
        "docker-arguments", help="print the arguments of `docker build` for the base image",
        description="Print the arguments of `docker build` for the base image: its reference, by "
        "its digest if it is pinned, and its labels.",
    )  # fmt: skip
    arguments.add_argument(
        "--base", metavar="IMAGE", help="use this base (default: the base in the Dockerfile)"
    )


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(IMAGES)):
        raise argparse.ArgumentTypeError(
            f"unknown image {unknown[0]!r}. Use one of: {', '.join(IMAGES)}"
        )
    return names


def build(options: argparse.Namespace) -> dict[str, str]:
    """Build the chosen images, push them if requested, and return the references by image."""
    require("buildah")
    environment = buildah_environment()
    base = base_for_build(options.base) if options.base else build_base(environment)
    references: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="finetune-images-") as folder:
        context = Path(folder)
        copy_context(context)
        for image in options.only:
            local = f"localhost/finetune-{image}:{content_tag(context, image, base)}"
            build_image(image, context, base, local, environment, again=options.again)
            references[image] = local
            if options.push:
                references[image] = push_image(image, local, options.push, options.tag, environment)
            elif options.tag:
                references[image] = f"localhost/finetune-{image}:{options.tag}"
                run(image, ["buildah", "tag", local, references[image]], env=environment)
    return references


def list_and_check(options: argparse.Namespace) -> int:
    """Write the bill of each image and report its vulnerabilities; returns the exit code."""
    require("buildah")
    environment = buildah_environment()
    options.folder.mkdir(parents=True, exist_ok=True)
    code = 0
    for image, name in tags(options.base and base_for_build(options.base)).items():
        if image not in options.only:
            continue
        reference = f"localhost/{name}"
        if not image_id(reference, environment):
            raise CommandError(f"{reference} does not exist. Build it: python3 -m images build")
        with mounted(reference, environment) as root:
            packages = packages_below(root)
        file = options.folder / f"{image}.cdx.json"
        file.write_text(json.dumps(bill(reference, packages), indent=1) + "\n")
        try:
            found = find_advisories(options.advisories, packages)
        except NotCheckedError as error:
            print(f"{image}\t{file}\t{len(packages)} packages, not checked: {error}")
            code = 1
            continue
        print(f"{image}\t{file}\t{len(packages)} packages, {len(found)} advisories")
        for advisory in found:
            print(f"{image}\t{advisory}")
        code = code or int(bool(found))
    return code


def tags(base: str | None = None) -> dict[str, str]:
    """Return the references that a build of this checkout would produce."""
    with tempfile.TemporaryDirectory(prefix="finetune-images-") as folder:
        copy_context(Path(folder))
        return {
            image: f"finetune-{image}:{content_tag(Path(folder), image, base or base_reference())}"
            for image in IMAGES
        }


def main() -> int:
    """Run one command and return the exit code."""
    options = parser().parse_args()
    try:
        match options.command:
            case "base":
                require("buildah")
                references = {"base": build_base(buildah_environment(), again=options.again)}
            case "sbom":
                return list_and_check(options)
            case "tags":
                references = tags(options.base and base_for_build(options.base))
            case "pin":
                name = options.image or dockerfile_base()
                references = {name: pin(name)}
            case "docker-arguments":
                base = base_for_build(options.base or dockerfile_base())
                print(*docker_arguments(base))
                return 0
            case _:
                references = build(options)
    except (BaseImageError, CommandError, OSError, urllib.error.URLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if getattr(options, "out", None):
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(references, indent=2) + "\n")
        say(f"wrote {options.out}")
    for image, reference in references.items():
        print(f"{image}\t{reference}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
