"""The pod's work folder: how the launcher and the workers tell each other what they know.

Small files, each replaced whole. The folder is empty when the pod starts and goes with it.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.outcome import Outcome


@dataclass(frozen=True)
class WorkDir:
    """What stands where in it."""

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
    def _fetch(self) -> Path:
        return self.root / "fetch.json"

    def outcome(self, local_rank: int) -> Path:
        return self.root / f"outcome-{local_rank}.json"

    def listening(self, local_rank: int) -> Path:
        """Holds the process id of a worker that answers SIGTERM."""
        return self.root / f"worker-{local_rank}.pid"

    # --- the launcher's downloads, as the workers see them ---------------------------------------

    def tell_fetch(self, detail: str, base_model: Path | None = None) -> None:
        """With `base_model`: everything is there, and that is the model's folder."""
        value = {"detail": detail, "baseModel": str(base_model) if base_model else None}
        replace(self._fetch, json.dumps(value))

    def fetch_detail(self) -> str:
        """ "downloading the base model: 34 %" """
        return str(self._read_fetch().get("detail") or "starting")

    def fetched_base_model(self) -> Path | None:
        path = self._read_fetch().get("baseModel")
        return Path(path) if path else None

    def wait_for_base_model(self) -> Path:
        """Until the launcher has fetched everything; it ends this process when it can't."""
        while (folder := self.fetched_base_model()) is None:
            time.sleep(0.05)
        return folder

    def _read_fetch(self) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads(self._fetch.read_text())
        except FileNotFoundError:
            return {}
        return value

    # --- what the workers leave ------------------------------------------------------------------

    def leave_outcome(self, local_rank: int, outcome: Outcome) -> None:
        replace(self.outcome(local_rank), outcome.to_json())

    def read_outcomes(self) -> dict[int, Outcome]:
        """By local rank."""
        found = {
            int(path.stem.removeprefix("outcome-")): Outcome.parse(path.read_text())
            for path in self.root.glob("outcome-*.json")
        }
        return {rank: outcome for rank, outcome in sorted(found.items()) if outcome is not None}

    def are_listening(self, workers: int) -> bool:
        """Whether all of so many workers answer SIGTERM."""
        return all(self.listening(rank).exists() for rank in range(workers))


def replace(path: Path, text: str) -> None:
    """Write the file so that a reader sees the old one or the new one."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
