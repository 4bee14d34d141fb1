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
