"""Parses the API server's dicts into the models of `finetune_api`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_cli.terminal.errors import CommandError

if TYPE_CHECKING:
    from finetune_api.finetune import FineTune
    from finetune_api.model import Model


def read_finetune(raw: dict[str, Any]) -> FineTune:
    """Raises CommandError for an object that this version cannot parse."""
    from pydantic import ValidationError

    from finetune_api.finetune import FineTune

    try:
        return FineTune.parse(raw)
    except ValidationError as error:
        raise _unreadable("fine-tune", raw, error) from error


def read_model(raw: dict[str, Any]) -> Model:
    """Raises CommandError for an object that this version cannot parse."""
    from pydantic import ValidationError

    from finetune_api.model import Model

    try:
        return Model.parse(raw)
    except ValidationError as error:
        raise _unreadable("model", raw, error) from error


def _unreadable(what: str, raw: dict[str, Any], error: Any) -> CommandError:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return CommandError(
        f"cannot parse {what} {raw['metadata']['name']!r}: {field}: {first['msg']}",
        "the cluster may run another version of the operator; -o yaml prints the object unparsed",
    )
