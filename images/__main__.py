"""`python3 -m images`: build the images, push them, say what they are called."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.error
from pathlib import Path

from images.base import base_reference, build_base
from images.build import build_image
from images.context import ROOMS, content_tag, copy_context
from images.progress import CommandError, run, say
from images.registry import push_image
from images.tools import buildah_environment, require

EPILOG = """\
examples:
  python3 -m images build                                   all three, into buildah's storage
  python3 -m images build --only operator                   one of them
  python3 -m images build --push 127.0.0.1:5000 --out f.json  and push; references as JSON in f.json
  python3 -m images build --base docker.io/library/python:3.12-slim --push registry.example.com/team

The tag is the hash of what went in: sources, dependency lists, Dockerfile and base. An image that
is there already is neither built nor pushed again. After a change of code only the last layer is.
Progress goes to stderr, the references to stdout. With docker or podman you don't need this
command: docker build --target operator|prepare|trainer .
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python3 -m images",
        description="Build the project's container images with buildah, and push them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    build = commands.add_parser(
        "build", help="build the images (the base too, where it is missing)",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    build.add_argument(
        "--only", metavar="NAMES", type=_names, default=list(ROOMS),
        help=f"comma-separated: {', '.join(ROOMS)} (default: all)",
    )  # fmt: skip
    build.add_argument(
        "--push", metavar="REGISTRY",
        help="push to REGISTRY[/PATH]; one on the loopback is spoken to in plain HTTP",
    )  # fmt: skip
    build.add_argument("--tag", help="a tag of your own instead of the content hash")
    build.add_argument(
        "--base", metavar="IMAGE",
        help="any Debian with Python 3.11 or later (default: made here from Debian packages)",
    )  # fmt: skip
    build.add_argument(
        "--again", action="store_true", help="even where the tag is there: after `base --again`"
    )
    build.add_argument("--out", metavar="FILE", type=Path, help="write the references as JSON")

    base = commands.add_parser("base", help="build the base image from Debian packages")
    base.add_argument("--again", action="store_true", help="even if it is there: newer packages")

    commands.add_parser("tags", help="print the references that a build would give, and stop")
    return top


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(ROOMS)):
        raise argparse.ArgumentTypeError(f"no image {unknown[0]!r}: one of {', '.join(ROOMS)}")
    return names


def build(options: argparse.Namespace) -> dict[str, str]:
    """Build and perhaps push; the references by image."""
    require("buildah")
    environment = buildah_environment()
    base = options.base or build_base(environment)
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


def tags() -> dict[str, str]:
    """What a build of the checkout as it is would be called."""
    with tempfile.TemporaryDirectory(prefix="finetune-images-") as folder:
        copy_context(Path(folder))
        return {
            image: f"finetune-{image}:{content_tag(Path(folder), image, base_reference())}"
            for image in ROOMS
        }


def main() -> int:
    """Run one command; the exit code."""
    options = parser().parse_args()
    try:
        match options.command:
            case "base":
                require("buildah")
                references = {"base": build_base(buildah_environment(), again=options.again)}
            case "tags":
                references = tags()
            case _:
                references = build(options)
    except (CommandError, OSError, urllib.error.URLError) as error:
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
