"""The settings of the server, from its command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.uris import S3Uri


@dataclass(frozen=True)
class Settings:
    """The decisions of an administrator, with the reasons for the defaults."""

    models: Mapping[str, str] = field(default_factory=dict)  # id -> folder or s3:// address
    # Addresses from the gateway are accepted only below these prefixes.
    models_below: tuple[S3Uri, ...] = ()
    trusts_gateway: bool = False
    # Every request needs the content of this file as its API key.
    secret_file: Path | None = None
    cache: Path = Path("/tmp/finetune-serving")  # noqa: S108 - a volume in the pod
    cache_bytes: int | None = None  # None: the free space of the disk
    keep: int = 2  # loaded models
    queue: int = 32  # requests that wait for one model
    # Below the 60 s of usual proxies, and below the gateway's own 50 s.
    hold_seconds: float = 45.0
    stream_hold_seconds: float = 600.0  # a stream shows life, so that no proxy ends it
    keep_alive_seconds: float = 15.0
    drain_seconds: float = 20.0  # for the completions that run when the server ends
    cpu: bool = False
