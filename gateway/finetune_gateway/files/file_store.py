"""The uploaded files of one namespace: `<files>/<namespace>/files/<file id>/<purpose>/<name>`.

The key tells everything that a list shows, so that one listing of the store suffices and replicas
share no state.
"""

from __future__ import annotations

from typing import Protocol

from finetune_api.finetune import FineTune
from finetune_api.uris import S3Uri
from finetune_gateway.wire.file_objects import StoredFile
from finetune_gateway.wire.ids import Artifact


class Files(Protocol):
    """The uploaded files, and what FineTunes publish. Every method raises Problem."""

    async def list(self) -> list[StoredFile]:
        """The uploaded files, oldest first."""
        ...

    async def find(self, file_id: str) -> StoredFile | None:
        """The uploaded file with this id; None if there is none, whatever the text is."""
        ...

    async def find_by_address(self, uri: S3Uri) -> StoredFile | None:
        """The uploaded file at this address."""
        ...

    async def read_results(self, finetune: FineTune) -> bytes | None:
        """results.csv. None if there is none yet, or if it is outside the chart's output."""
        ...

    def artifact_uri(self, artifact: Artifact, finetune: FineTune) -> S3Uri | None:
        """The address of a published file. None if it is outside the chart's output."""
        ...
