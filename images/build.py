"""Builds one image, with the host's certificates, package index and download cache."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.progress import run, say
from images.provenance import provenance
from images.tools import image_id

BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
UV_CACHE = "/mnt/uv-cache"  # the path that install.sh tests
_INDEX_SETTING = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX\w*|EXTRA_INDEX_URL|INSECURE_HOST|KEYRING_PROVIDER)"
    r"|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT|RETRIES)"
)


@contextmanager
def index_settings() -> Iterator[str]:
    """Yield a path for `--secret` with the host's index settings as shell lines, in memory only."""
    settings = {name: value for name, value in os.environ.items() if _INDEX_SETTING.fullmatch(name)}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(settings.items())]
    descriptor = os.memfd_create("index")
    try:
        os.write(descriptor, "".join(lines).encode())
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def host_mounts() -> list[str]:
    """Return the volumes with the trusted certificates and uv's download cache of this machine."""
    mounts: list[str] = []
    bundle = Path(os.environ.get("SSL_CERT_FILE") or BUNDLE)
    if bundle.is_file():
        mounts.append(f"{bundle}:{BUNDLE}:ro")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"
    cache = Path(os.environ.get("UV_CACHE_DIR") or default)
    cache.mkdir(parents=True, exist_ok=True)
    mounts.append(f"{cache}:{UV_CACHE}")
    return [word for mount in mounts for word in ("--volume", mount)]


def build_image(
    image: str,
    context: Path,
    base: str,
    reference: str,
    environment: dict[str, str],
    *,
    again: bool = False,
) -> None:
    """Build target `image` as `reference`, unless that reference (a content hash) exists."""
    if not again and image_id(reference, environment):
        say(f"{image}: {reference} exists")
        return
    say(f"{image}: building {reference}")
    found = provenance(image, reference.rpartition(":")[2], base, environment)
    labels = [word for name, value in found.items() for word in ("--label", f"{name}={value}")]
    with index_settings() as secret:
        run(
            image,
            ["buildah", "bud", "--layers", "--force-rm", "--network", "host", *host_mounts(),
             "--secret", f"id=index,src={secret}", "--build-arg", f"BASE={base}",
             *labels, "--target", image, "--tag", reference, context],
            env=environment,
            shown=lambda line: " STEP " in line or line.startswith(("Prepared", "Installed",
                                                                    "Bytecode", "ahead-of-time")),
        )  # fmt: skip
    say(f"{image}: built {reference}")
