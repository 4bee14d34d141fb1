"""Where the files of a requested model are: from the command line, or from the gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from finetune_api.text.sanitizing import sanitize
from finetune_api.uris import S3Uri
from finetune_web.problems import Problem, invalid

URI_HEADER = "X-Finetune-Model-Uri"
DIGEST_HEADER = "X-Finetune-Manifest-Sha256"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelAddress:
    """The files of a model. Two models with the same files are one model in memory.

    manifest_sha256: the digest that the manifest must have; None: any.
    """

    name: str = field(compare=False)
    location: Path | S3Uri
    manifest_sha256: str | None = None


class ModelSource(Protocol):
    """Knows where models are."""

    def find(self, model: str, headers: Mapping[str, str]) -> ModelAddress | None:
        """The address of a model; None if the source does not have it. Raises Problem."""

    def names(self) -> Sequence[str]:
        """The models that can be listed."""


class FixedModels:
    """The models of the command line."""

    def __init__(self, models: Mapping[str, str]) -> None:
        """models: folders or s3:// addresses by names. Raises ValueError."""
        self._models = {
            name: ModelAddress(
                name, S3Uri.parse(where) if where.startswith("s3://") else Path(where)
            )
            for name, where in models.items()
        }

    def find(self, model: str, headers: Mapping[str, str]) -> ModelAddress | None:
        if URI_HEADER in headers or DIGEST_HEADER in headers:
            raise _untrusted()
        return self._models.get(model)

    def names(self) -> Sequence[str]:
        return [*self._models]


class GatewayModels:
    """Models whose addresses the gateway sends, below prefixes that the administrator set."""

    def __init__(self, below: Sequence[S3Uri], otherwise: ModelSource) -> None:
        """otherwise: for requests without an address."""
        self._below = below
        self._otherwise = otherwise

    def find(self, model: str, headers: Mapping[str, str]) -> ModelAddress | None:
        uri, digest = headers.get(URI_HEADER), headers.get(DIGEST_HEADER)
        if uri is None and digest is None:
            return self._otherwise.find(model, headers)
        if uri is None or digest is None or not _DIGEST.fullmatch(digest):
            raise invalid(
                f"The headers {URI_HEADER} and {DIGEST_HEADER} must be sent together, the second "
                "with 64 hexadecimal digits."
            )
        try:
            uri.encode()  # a header that is not UTF-8 has surrogates
            location = S3Uri.parse(uri)
        except ValueError as error:
            raise invalid(f"{URI_HEADER} is not a plain S3 address.") from error
        if not any(is_below(location, root) for root in self._below):
            raise invalid(
                f"{URI_HEADER} is {sanitize(uri[:200])}, which is not below an address of "
                "--models-below."
            )
        return ModelAddress(model, location, digest)

    def names(self) -> Sequence[str]:
        return self._otherwise.names()


def is_below(uri: S3Uri, root: S3Uri) -> bool:
    """Whether it is strictly below the prefix."""
    inside = f"{root.key}/" if root.key else ""
    return uri.bucket == root.bucket and uri.key.startswith(inside) and uri.key != inside


def _untrusted() -> Problem:
    return invalid(
        f"This server does not accept {URI_HEADER} and {DIGEST_HEADER}. Start it with "
        "--trust-gateway, or remove the headers."
    )
