"""`manifest.json` of a run: its model, data, hyperparameters, and software versions.

The trainer writes it. `recipe` compares what decides on the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.outcome import Trained
from finetune_api.tasks import BaseModelRef, MethodRef, RunRef
from finetune_api.wire import Stored
from finetune_data.read.sources import ending_of
from finetune_data.tokenize.dataset import DatasetSource, FileShare, SplitCounts

# A part of a training, by the name that messages give it.
Recipe = dict[str, Any]


class RunManifest(Stored):
    """Everything that is needed to reproduce the training."""

    kind: Literal["run"] = "run"
    run: RunRef
    attempt: int
    base: BaseModelRef
    hyperparameters: ResolvedHyperparameters  # includes the seed
    method: MethodRef = MethodRef()
    dataset: dict[str, Any]  # the source in its manifest: data files with ETags and digests
    splits: dict[str, Any]
    training_files: list[FileShare] | None = None  # the parts of an epoch; None: a single file
    nodes: int
    processes_per_node: int
    accelerator: str
    zero_stage: int
    precision: str
    versions: dict[str, str]
    trained: Trained | None = None


def recipe(
    base: BaseModelRef,
    hyperparameters: ResolvedHyperparameters,
    method: MethodRef,
    *,
    accelerator: str,
    source: DatasetSource,
    splits: Mapping[str, SplitCounts],
    shares: list[FileShare] | None,
) -> Recipe:
    """What decides on the weights. Equal recipes make equal models, up to roundings.

    The number of nodes and GPUs, ZeRO, and the versions of the software are no part of it; the
    accelerator is, because the precision follows from it. A data file counts by its contents, and
    by the ending of its name, which decides how it is read.
    """
    data = source.to_dict()
    files = {
        name: [ending_of(known.uri), known.size, known.sha256]
        for name, known in source.inputs.items()
    }
    return {
        "base model": [base.root, base.uri, base.revision],
        **{f"hyperparameters.{key}": it for key, it in hyperparameters.to_dict().items()},
        "method": method.to_dict(),
        "accelerator": accelerator,
        "tokenizer": data.pop("tokenizerSha256"),
        "data files": files,
        "settings of the data": {key: it for key, it in data.items() if key != "inputs"},
        "examples": {name: counts.to_dict() for name, counts in splits.items()},
        "shares of the data files": [share.to_dict() for share in shares or []],
    }


def find_gap(base: BaseModelRef, source: DatasetSource) -> str | None:
    """What a training does not record, so that nothing can be compared with it; None: nothing."""
    if not base.revision:
        return "the revision of its base model"
    if not source.inputs or any(not known.sha256 for known in source.inputs.values()):
        return "the digests of its data files"
    return None


def find_difference(one: Recipe, other: Recipe) -> str | None:
    """The first part that differs; None if both recipes are the same."""
    names = dict.fromkeys([*one, *other])
    return next((name for name in names if one.get(name) != other.get(name)), None)
