"""Downloads from a Hugging Face hub, and converts its exceptions.

The settings are the hub's own: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, and HF_HOME or HF_HUB_CACHE
for a cache that outlives the pod. The hub's client is imported where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finetune_api.errors import Audience
from finetune_api.outcome import Failure
from finetune_api.uris import HubUri
from finetune_data import failures
from finetune_data.errors import BaseModelError
from finetune_storage.progress import ProgressCallback, ProgressMeter
from finetune_storage.transfers import fetch_in_parallel, matches

ANSWER_SECONDS = 30
MakeFailure = Callable[[str, HubUri, Audience], Failure]


@dataclass(frozen=True)
class HubFiles:
    """The files of a revision, and those to download."""

    uri: HubUri
    commit: str
    names: list[str]  # all files of the revision
    wanted: dict[str, int]  # path -> bytes
    cached: Path | None = None  # their folder if the hub is offline


def list_files(uri: HubUri, include: Sequence[str], name: str) -> HubFiles:
    """The files of a revision: from the hub, or offline from its cache. Raises BaseModelError."""
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        folder = _cached_folder(uri, include, name)
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        return HubFiles(uri, folder.name, names, {}, folder)
    with _errors(uri, name):
        info = HfApi(endpoint=_endpoint()).model_info(
            uri.repo, revision=uri.revision, files_metadata=True, timeout=ANSWER_SECONDS
        )
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or []}
    wanted = {path: size for path, size in sizes.items() if matches(path, include)}
    return HubFiles(uri, str(info.sha), list(sizes), wanted)


def fetch(files: HubFiles, folder: Path, name: str, progress: ProgressCallback | None) -> Path:
    """Download the files; returns the folder that has them. Raises BaseModelError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if files.cached is not None:
        return files.cached
    shared = bool(os.environ.get("HF_HOME") or os.environ.get("HF_HUB_CACHE"))
    meter = ProgressMeter(sum(files.wanted.values()), progress)
    arrived: dict[str, Path] = {}

    def download(path: str) -> None:
        arrived[path] = Path(
            hf_hub_download(
                files.uri.repo,
                path,
                revision=files.commit,
                local_dir=None if shared else folder,
                endpoint=_endpoint(),
            )
        )
        meter(files.wanted[path])

    disable_progress_bars()  # the output is a log
    with _errors(files.uri, name):
        fetch_in_parallel(download, files.wanted)
    # all of these files are at the top level
    return next((path.parent for path in arrived.values()), folder)


def _cached_folder(uri: HubUri, include: Sequence[str], name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                uri.repo,
                revision=uri.revision,
                local_files_only=True,
                allow_patterns=list(include),
                ignore_patterns=["*/*"],
            )
        )
    except LocalEntryNotFoundError as error:
        raise _error(name, uri, failures.not_in_hub_cache) from error


@contextmanager
def _errors(uri: HubUri, name: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise _error(name, uri, failures.gated_model) from error
    except RevisionNotFoundError as error:
        raise _error(name, uri, failures.no_revision) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise _error(name, uri, failures.not_on_hub) from error
    except (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        problem = f"HTTP {status}" if status else type(error).__name__
        make = partial(
            failures.unreachable_hub, hub=_endpoint() or "huggingface.co", problem=problem
        )
        raise _error(name, uri, make) from error


def _error(name: str, uri: HubUri, make: MakeFailure) -> BaseModelError:
    return BaseModelError(make(name, uri, Audience.POD), make(name, uri, Audience.SHELL))


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")
