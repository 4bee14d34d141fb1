"""Resolves the tag of a base image to the digest that its registry serves, and verifies it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from images.references import BaseImageError, Reference
from images.registry_client import INDEXES, MANIFESTS, Answer, get_manifest, printable


@dataclass(frozen=True)
class Resolved:
    """A verified digest. is_index: of an index of platforms, and not of one platform's image."""

    digest: str
    is_index: bool


def resolve_digest(reference: Reference) -> Resolved:
    """Ask the registry for the digest of a tag. Raise BaseImageError without a verified answer."""
    answer = get_manifest(reference)
    computed = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
    named = answer.headers.get("Docker-Content-Digest", "").strip()
    if not named:
        raise BaseImageError(
            f"{reference}: the answer of the registry has no header Docker-Content-Digest. Use "
            "another registry."
        )
    if named != computed:
        raise BaseImageError(
            f"{reference}: the registry names the digest {printable(named)}, but its answer has "
            f"{computed}. Check for a proxy that changes answers, and try again."
        )
    return Resolved(computed, _is_index(reference, answer))


def _is_index(reference: Reference, answer: Answer) -> bool:
    """Whether the answer is an index; a manifest otherwise. Raise BaseImageError for neither."""
    kind = answer.headers.get_content_type()
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and found.get("schemaVersion") == 2:
        is_of_kind = found.get("mediaType", kind) == kind
        if is_of_kind and kind in INDEXES and _are_descriptors(found.get("manifests")):
            return True
        parts = [found.get("config"), *_listed(found.get("layers"))]
        if is_of_kind and kind in MANIFESTS and _are_descriptors(parts):
            return False
    raise BaseImageError(
        f"{reference}: the registry has answered with neither a manifest nor an index of an image "
        f"({printable(kind)}). Check the reference."
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _are_descriptors(values: Any) -> bool:
    """Whether this is a list of references to content, and not empty."""
    return bool(values) and all(
        isinstance(it, dict) and isinstance(it.get("digest"), str) for it in _listed(values)
    )
