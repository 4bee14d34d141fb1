"""Finds the base model of a run: in the catalog, in the --models file, or in the output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_api.catalog import CatalogModel
from finetune_api.layout import MANIFEST, RunLayout
from finetune_api.names import LOCAL_BUCKET
from finetune_api.outcome import Failure
from finetune_api.tasks import BaseModelRef
from finetune_cli.manifests.models_file import known_models
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE

OWN_MODELS = (
    "to use your own base model, pass --models FILE: a YAML list of name, uri (a folder, s3://, or "
    "hf://), pretrainingLearningRate, and contextLength"
)


def find_base(name: str, models_file: Path | None, root: Path) -> BaseModelRef:
    """The base model for spec.model. Raises CommandError that lists the known models."""
    known = known_models(models_file, root)
    if name in known:
        return known[name].reference
    trained = _trained_here(root)
    if name in trained:
        return _trained_base(trained[name], known)
    listed = ", ".join([*known, *sorted(trained)])
    advice = "spec.model must be a name, not a folder. " if "/" in name else ""
    raise CommandError(
        f"unknown model {name!r:.80}. {advice}Known models: {listed}", OWN_MODELS, code=EXIT_USAGE
    )


def with_own_models(failure: Failure, uri: str) -> Failure:
    """Add the --models file to the hint about a base model that the hub does not provide."""
    if failure.param != "model" or failure.hint is None or not uri.startswith("hf://"):
        return failure
    return failure.replace(hint=f"{failure.hint}; {OWN_MODELS}")


def _trained_here(root: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """(folder, manifest) of the fine-tuned models in the output folder, by name."""
    found = {}
    for path in root.glob(f"*/*/model/{MANIFEST}"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found[str(manifest["id"])] = path.parent, manifest
    return found


def with_former_revision(base: BaseModelRef, layout: RunLayout) -> BaseModelRef:
    """The base model with the revision that an interrupted run has begun with, if there is one."""
    from finetune_storage.connect import open_storage

    storage = open_storage()
    if not storage.exists(layout.manifest):
        return base
    try:
        former = BaseModelRef.model_validate(
            json.loads(storage.read_bytes(layout.manifest))["base"]
        )
    except (ValueError, KeyError, TypeError):
        return base
    return base.replace(revision=former.revision) if former.uri == base.uri else base


def _trained_base(
    model: tuple[Path, dict[str, Any]], known: dict[str, CatalogModel]
) -> BaseModelRef:
    """A fine-tuned model as a base model, with the settings of its own base model."""
    folder, manifest = model
    root = str(manifest["id"]).partition(":")[0]
    base = known.get(root)
    if base is None:
        raise CommandError(
            f"the base model {root!r:.80} of {manifest['id']} is unknown",
            "pass the --models FILE that it was trained with",
            code=EXIT_USAGE,
        )
    key = "/".join(folder.parts[-3:])
    return base.reference.replace(name=manifest["id"], uri=f"s3://{LOCAL_BUCKET}/{key}")
