"""The files of a model on this machine, and what its manifest says about prompts and endings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.layout import MANIFEST


@dataclass(frozen=True)
class LocalModel:
    """The files of a model on this machine.

    name: the name in answers. adapter: LoRA weights to add to the model in `folder`.
    """

    name: str
    folder: Path
    adapter: Path | None = None

    @property
    def published_name(self) -> str:
        """The id of the published model; the name for files without a manifest."""
        found = (it.get("id") for it in self._manifests if it.get("kind") == "model")
        return next((text for text in found if isinstance(text, str) and text), self.name)

    @property
    def separator(self) -> str:
        """The separator at the end of every training prompt; empty if the manifest has none."""
        found = (manifest.get("separator") for manifest in self._manifests)
        return next((text for text in found if isinstance(text, str)), "")

    @property
    def end_tokens(self) -> list[int]:
        """The end tokens of an adapter, whose base model can have others; else empty.

        A model has them in its own configuration.
        """
        if self.adapter is None:
            return []
        found = (manifest.get("endTokens") for manifest in self._manifests)
        tokens = next((it for it in found if isinstance(it, list)), [])
        return [token for token in tokens if isinstance(token, int)]

    @property
    def is_of_earlier_version(self) -> bool:
        """Whether the model was published without the end tokens that it has learned."""
        published = [it for it in self._manifests if it.get("kind") == "model"]
        return bool(published) and "endTokens" not in published[0]

    @property
    def _manifests(self) -> list[dict[str, Any]]:
        """The manifests of the adapter and the model, the most specific first."""
        from finetune_data.models.base_models import read_json

        folders = [*((self.adapter, self.adapter.parent) if self.adapter else ()), self.folder]
        return [found for folder in folders if (found := read_json(folder / MANIFEST))]
