"""Downloads from a Hugging Face hub, and converts its exceptions.

The settings are the hub's own: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, and HF_HOME or HF_HUB_CACHE
for a cache that outlives the pod. The hub's client is imported where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

from finetune_api.errors import Audience
from finetune_api.outcome import Failure
from finetune_api.uris import HubUri
from finetune_data import failures
from finetune_data.errors import BaseModelError
from finetune_data.models.hub_client import guard_hub_client
from finetune_data.models.hub_connection import HUB, no_way_to_hub
from finetune_data.models.remote_model import RemoteFile, RemoteModel
from finetune_data.models.safetensors_files import LENGTH_BYTES, header_length, read_header
from finetune_storage.connections import find_cause
from finetune_storage.progress import ProgressCallback, ProgressMeter
from finetune_storage.transfers import fetch_in_parallel, matches

ANSWER_SECONDS = 30
FIRST_BYTES = 100_000  # holds nearly every header, so that one request is enough
MakeFailure = Callable[[str, HubUri, Audience], Failure]


class HubModel(RemoteModel):
    """The files of a revision: from the hub, or offline from its cache."""

    def __init__(
        self, uri: HubUri, include: Sequence[str], name: str, commit: str | None = None
    ) -> None:
        """include: patterns of wanted files. name: of the model. Raises BaseModelError.

        commit: used instead of the revision in the address, which may have moved on.
        """
        from huggingface_hub import HfApi, constants

        self._uri = uri
        self._name = name
        self._cached: Path | None = None  # the folder of the files if the hub is offline
        self.files: dict[str, RemoteFile] = {}
        if constants.is_offline_mode():
            self._cached = _cached_folder(HubUri(uri.repo, commit or uri.revision), include, name)
            self._commit = self._cached.name
            paths = (path for path in self._cached.rglob("*") if path.is_file())
            self.names = [str(path.relative_to(self._cached)) for path in paths]
            return
        guard_hub_client()
        with _errors(uri, name, commit):
            info = HfApi(endpoint=_endpoint()).model_info(
                uri.repo,
                revision=commit or uri.revision,
                files_metadata=True,
                timeout=ANSWER_SECONDS,
            )
        self._commit = str(info.sha)
        self.location = f"{_endpoint() or HUB} {uri.repo}"
        siblings = info.siblings or []
        self.names = [file.rfilename for file in siblings]  # all files of the revision
        self.files = {
            file.rfilename: RemoteFile(
                file.rfilename,
                size=int(file.size or 0),
                # a commit that changes only the model card keeps the versions of the weights
                version=str(file.blob_id or self._commit),
                sha256=file.lfs.sha256 if file.lfs else None,
            )
            for file in siblings
            if matches(file.rfilename, include)
        }

    @property
    def revision(self) -> str:
        """The commit."""
        return self._commit

    @property
    def is_cacheable(self) -> bool:
        return self._cached is None and not _has_own_cache()

    def space_needed(self) -> int:
        if not self.is_cacheable:  # some files may be there, and on another file system
            return 0
        return sum(file.size for file in self.files.values())

    def fetch(
        self, names: Collection[str], folder: Path, progress: ProgressCallback | None = None
    ) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import disable_progress_bars

        if self._cached is not None:
            return self._cached
        meter = ProgressMeter(sum(self.files[name].size for name in names), progress)
        arrived: dict[str, Path] = {}

        def download(path: str) -> None:
            arrived[path] = Path(
                hf_hub_download(
                    self._uri.repo,
                    path,
                    revision=self._commit,
                    local_dir=folder if self.is_cacheable else None,
                    endpoint=_endpoint(),
                )
            )
            meter(self.files[path].size)

        disable_progress_bars()  # the output is a log
        with _errors(self._uri, self._name):
            fetch_in_parallel(download, names)
        return next((path.parents[name.count("/")] for name, path in arrived.items()), folder)

    def read_header(self, name: str) -> tuple[bytes, int]:
        if self._cached is not None:
            return read_header(self._cached / name)
        size = self.files[name].size
        start = self._read_range(name, 0, FIRST_BYTES)
        length = header_length(start[:LENGTH_BYTES], size)
        text = start[LENGTH_BYTES : LENGTH_BYTES + length]
        if len(text) < length:
            text = self._read_range(name, LENGTH_BYTES, length)
        return text, size - LENGTH_BYTES - length

    def _read_range(self, name: str, start: int, size: int) -> bytes:
        """`size` bytes of a file; fewer if it ends before.

        The hub's own `parse_safetensors_file_metadata` would hold whole files in memory if a mirror
        ignores ranges, and hides the header from a check.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(self._uri.repo, name, revision=self._commit, endpoint=_endpoint())
        wanted = {"Range": f"bytes={start}-{start + size - 1}", "Accept-Encoding": "identity"}
        found = bytearray()
        with (
            _errors(self._uri, self._name),
            get_session().stream(
                "GET", url, headers={**build_hf_headers(), **wanted}, timeout=ANSWER_SECONDS
            ) as answer,
        ):
            hf_raise_for_status(answer)
            skipped = 0 if answer.status_code == HTTPStatus.PARTIAL_CONTENT else start
            for part in answer.iter_bytes():
                found += part
                if len(found) >= skipped + size:
                    break
        return bytes(found[skipped : skipped + size])


def _has_own_cache() -> bool:
    return bool(os.environ.get("HF_HOME") or os.environ.get("HF_HUB_CACHE"))


def _cached_folder(uri: HubUri, include: Sequence[str], name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # in the hub's patterns, `*` matches slashes
    nested = [pattern for pattern in include if "/" in pattern]
    try:
        for allowed, ignored in ((list(include), ["*/*"]), (nested, [])):
            folder = snapshot_download(
                uri.repo,
                revision=uri.revision,
                local_files_only=True,
                allow_patterns=allowed,
                ignore_patterns=ignored,
            )
        return Path(folder)
    except LocalEntryNotFoundError as error:
        raise _error(name, uri, failures.not_in_hub_cache) from error


@contextmanager
def _errors(uri: HubUri, name: str, commit: str | None = None) -> Iterator[None]:
    """commit: resolved before, so that the hub has lost it if it has no such revision."""
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
        if commit is not None:
            failure = failures.changed_model(name, uri, commit, None)
            raise BaseModelError(failure) from error
        raise _error(name, uri, failures.no_revision) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise _error(name, uri, failures.not_on_hub) from error
    except (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        url = _endpoint() or HUB
        cause = None if status else find_cause(error, url)
        if cause is not None:
            found = partial(no_way_to_hub, hub=url, cause=cause)
            raise _error(name, uri, found) from error
        problem = f"HTTP {status}" if status else type(error).__name__
        make = partial(
            failures.unreachable_hub, hub=_endpoint() or "huggingface.co", problem=problem
        )
        raise _error(name, uri, make) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # quotes the answer
        make = partial(
            failures.unreachable_hub,
            hub=_endpoint() or "huggingface.co",
            problem="its answer is not one of a hub",
        )
        raise _error(name, uri, make) from error


def _error(name: str, uri: HubUri, make: MakeFailure) -> BaseModelError:
    return BaseModelError(make(name, uri, Audience.POD), make(name, uri, Audience.SHELL))


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")
