"""Whose files a Model names, and who else needs them: pure checks before a deletion.

A Model may be written by hand. Other objects are read as the API server returns them: one that this
version cannot parse must neither hide a use of the files nor block the deletion.
"""

from finetune_api import names
from finetune_api.layout import is_model_address, model_address
from finetune_api.model import Model
from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_operator import messages


def find_address_problem(model: Model) -> str | None:
    """Why the address cannot be that of the Model's own files; None if it can be."""
    source, namespace = model.spec.fine_tune, model.metadata.namespace
    if source is None:
        return messages.owner_missing(model.spec.uri)
    uri = _parse(model.spec.uri)
    if uri is None or not is_model_address(uri, namespace, source.name, source.uid):
        expected = model_address(namespace, source.name, source.uid)
        return messages.address_of_other(model.spec.uri, expected)
    return None


def shares_files(model: Model, other: JsonObject) -> bool:
    """Whether another Model of the namespace names the same files, or some of them."""
    mine, theirs = _parse(model.spec.uri), _parse(other.get("spec", {}).get("uri", ""))
    if other["metadata"].get("uid") == model.metadata.uid or mine is None or theirs is None:
        return False
    return mine == theirs or _is_below(mine, theirs) or _is_below(theirs, mine)


def describes_same_files(adopted: JsonObject, existing: JsonObject) -> bool:
    """Whether a Model of this name that exists is the one that a FineTune is about to adopt.

    It came with a backup, or its FineTune was deleted. One that is being deleted is not.
    """
    if names.ANNOTATION_ADOPTED_FROM not in adopted["metadata"].get("annotations", {}):
        return False
    wanted, found = adopted["spec"], existing.get("spec", {})
    digest = found.get("manifestSha256", wanted["manifestSha256"])
    return (
        "deletionTimestamp" not in existing["metadata"]
        and found.get("id") == wanted["id"]
        and _parse(found.get("uri", "")) == _parse(wanted["uri"])
        and digest == wanted["manifestSha256"]
    )


def going_files(model: JsonObject) -> str | None:
    """The address of files that a Model deletes with itself; None if it is not being deleted."""
    spec = model.get("spec", {})
    is_going = "deletionTimestamp" in model["metadata"] and spec.get("deletionPolicy") == "Delete"
    uri = _parse(spec.get("uri", "")) if is_going else None
    return str(uri) if uri is not None else None


def may_adopt(finetune: JsonObject, model: Model) -> bool:
    """Whether a new FineTune may be about to adopt the model, which a former one has trained.

    It has the same name, and it has neither ended nor begun to train.
    """
    source, status = model.spec.fine_tune, finetune.get("status") or {}
    spec, meta = finetune.get("spec", {}), finetune["metadata"]
    if source is None or meta["name"] != source.name or meta.get("uid") == source.uid:
        return False
    if spec.get("reuse") == "Never" or spec.get("dryRun") or "deletionTimestamp" in meta:
        return False
    is_checked = (status.get("resolved") or {}).get("hyperparameters") is not None
    waits = status.get("stage") == names.Stage.PUBLISHING  # the API server refuses the Model
    has_begun = bool(status.get("attempts")) or (is_checked and not waits)
    return status.get("state") not in names.TERMINAL_STATES and not has_begun


def continues_from(finetune: JsonObject, model: Model) -> bool:
    """Whether an unfinished FineTune reads, or may be about to read, the files of the Model.

    A FineTune that is not resolved yet counts if it names the Model: its reconcile may have read
    the Model before the deletion began. The next reconcile refuses the Model, or resolves it.
    """
    status = finetune.get("status") or {}
    is_going = "deletionTimestamp" in finetune["metadata"]
    if status.get("state") in names.TERMINAL_STATES or is_going:
        return False
    resolved = status.get("resolved")
    if resolved is None:
        wanted = finetune.get("spec", {}).get("model")
        return wanted in {model.metadata.name, model.spec.id}
    used, mine = _parse(resolved.get("base", {}).get("uri", "")), _parse(model.spec.uri)
    return used is not None and used == mine


def _parse(text: str) -> S3Uri | None:
    try:
        return S3Uri.parse(text)
    except ValueError:
        return None


def _is_below(uri: S3Uri, prefix: S3Uri) -> bool:
    return uri.bucket == prefix.bucket and (not prefix.key or uri.key.startswith(f"{prefix.key}/"))
