"""The pod's working directory, where the launcher and the ranks exchange small files.

Each file is replaced atomically. The directory is empty when the pod starts, and is deleted with
the pod. Launcher and ranks come from the same image, so that the formats may change at any time.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_api.outcome import Outcome
from finetune_api.wire import Stored


class RankOutcome(Stored):
    """`outcome-N.json`: the outcome of a rank, and what only the pod's launcher needs to know.

    `is_echo` never leaves the pod: the termination message holds the outcome only.
    """

    outcome: Outcome
    is_echo: bool = False  # the rank lost its peer; the root cause is on another rank


@dataclass(frozen=True)
class WorkDir:
    """The paths in the directory, and the values of the files that are exchanged."""

    root: Path

    @property
    def base_model(self) -> Path:
        return self.root / "base-model"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def _downloads(self) -> Path:
        return self.root / "downloads.json"

    def outcome(self, local_rank: int) -> Path:
        return self.root / f"outcome-{local_rank}.json"

    def nccl_log(self, local_rank: int) -> Path:
        """The log of a rank's NCCL, if there are several nodes and the user has no settings."""
        return self.root / f"nccl-{local_rank}.log"

    def pid(self, local_rank: int) -> Path:
        """Holds the process id of a rank once it handles SIGTERM."""
        return self.root / f"rank-{local_rank}.pid"

    # --- the launcher's downloads, as the ranks see them -----------------------------------------

    def write_download_progress(self, detail: str, base_model: Path | None = None) -> None:
        """base_model: the model's folder, once all downloads are complete."""
        value = {"detail": detail, "baseModel": str(base_model) if base_model else None}
        replace(self._downloads, json.dumps(value))

    def download_detail(self) -> str:
        """ "downloading the base model: 34 %" """
        return str(self._read_downloads().get("detail") or "starting")

    def downloaded_base_model(self) -> Path | None:
        path = self._read_downloads().get("baseModel")
        return Path(path) if path else None

    def wait_for_base_model(self) -> Path:
        """Return once all downloads are complete; if one fails, the launcher ends this process."""
        while (folder := self.downloaded_base_model()) is None:
            time.sleep(0.05)
        return folder

    def _read_downloads(self) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads(self._downloads.read_text())
        except FileNotFoundError:
            return {}
        return value

    # --- the outcomes of the ranks ---------------------------------------------------------------

    def write_outcome(self, local_rank: int, outcome: Outcome, *, is_echo: bool = False) -> None:
        replace(self.outcome(local_rank), RankOutcome(outcome=outcome, is_echo=is_echo).to_json())

    def read_outcomes(self) -> dict[int, RankOutcome]:
        """By local rank. A file that is not a RankOutcome is ignored."""
        found = {}
        for path in self.root.glob("outcome-*.json"):
            try:
                value = RankOutcome.model_validate_json(path.read_bytes())
            except ValidationError:
                continue
            found[int(path.stem.removeprefix("outcome-"))] = value
        return dict(sorted(found.items()))

    def is_handling_sigterm(self, ranks: int) -> bool:
        """Whether all ranks of the pod handle SIGTERM."""
        return all(self.pid(rank).exists() for rank in range(ranks))


def replace(path: Path, text: str) -> None:
    """Write the file so that a reader sees either the old or the new contents."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
