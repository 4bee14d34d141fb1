"""The flags of `create` for fields of the spec.

Types and help texts come from the API models. Each hyperparameter has a flag; the other fields have
one if they are in FLAGS. All other fields can be set with `--set`.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import click
from pydantic.fields import FieldInfo

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.unknown_fields import nested_model

Function = TypeVar("Function", bound=Callable[..., Any])

HYPERPARAMETERS = "hyperparameters"
HELP_CHARACTERS = 100  # the first sentence of a description, and more sentences up to this length
FLAGS = {
    "--method": "method.type",
    "--lora-rank": "method.rank",
    "--nodes": "resources.nodes",
    "--gpus-per-node": "resources.gpusPerNode",
    "--runtime": "runtime",
    "--queue-name": "queueName",
    "--secret-name": "storage.secretName",
    "--output-to": "output",
    "--max-restarts": "maxRestarts",
    "--check-only": "dryRun",
}


class FloatList(click.ParamType[list[float]]):
    """`0.6,1,1.5`, or `0.6 1 1.5` as in OpenAI's command line (see `join_betas`)."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[float]:
        try:
            return [float(part) for part in str(value).replace(",", " ").split()]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.5,1,2", param, ctx)


def field_flags(function: Function) -> Function:
    """Add a flag for each hyperparameter and each field in FLAGS, without a default."""
    for flag, _, field in reversed([*_flags()]):
        kind = _click_type(field.annotation)
        settings: dict[str, Any] = {"is_flag": True} if kind is bool else {"type": kind}
        text = _short_help(field.description or "")
        function = click.option(flag, default=None, help=text, **settings)(function)
    return function


def field_values(given: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(path, value) of the flags that were given. given: values by click's parameter names."""
    named = [(flag.removeprefix("--").replace("-", "_"), path) for flag, path, _ in _flags()]
    return [(path, given[name]) for name, path in named if given.get(name) is not None]


def join_betas(arguments: list[str]) -> list[str]:
    """Join the values of `--classification_betas 0.6 1 2` (OpenAI's syntax) with commas."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word.replace("_", "-") == "--classification-betas":
            values = []
            while rest and _is_number(rest[0]):
                values.append(rest.pop(0))
            joined += [",".join(values)] if values else []
    return joined


def _flags() -> Iterator[tuple[str, str, FieldInfo]]:
    """(flag, path in the spec, field)."""
    hyperparameters = nested_model(FineTuneSpec.model_fields[HYPERPARAMETERS].annotation)
    assert hyperparameters is not None
    for name, field in hyperparameters.model_fields.items():
        yield f"--{name.replace('_', '-')}", f"{HYPERPARAMETERS}.{field.alias or name}", field
    for flag, path in FLAGS.items():
        yield flag, path, _field(path)


def _field(path: str) -> FieldInfo:
    """The field of the spec at `a.b.c`."""
    model: Any = FineTuneSpec
    *folders, last = path.split(".")
    for folder in folders:
        model = nested_model(_by_alias(model)[folder].annotation)
    return _by_alias(model)[last]


def _by_alias(model: Any) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _click_type(annotation: Any) -> Any:
    """The type of an option for `T`, `T | None`, or `Annotated[T, ...]`."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {typing.Union, types.UnionType}:
        return _click_type(next(part for part in parts if part is not type(None)))
    if origin is typing.Annotated:
        return _click_type(parts[0])
    if origin is Literal:
        return click.Choice(parts)
    return FloatList() if origin is list else annotation


def _short_help(description: str) -> str:
    """The first sentences of a description; the reference page has all of it."""
    text, *more = re.split(r"(?<=\.) (?=\S)", description)
    for sentence in more:
        if sentence.startswith("Default:") or len(f"{text} {sentence}") > HELP_CHARACTERS:
            break
        text = f"{text} {sentence}"
    return re.sub(r"\b[a-z]+([A-Z][a-z]*)+\b", lambda word: _flag_of(word[0]), text)


def _flag_of(name: str) -> str:
    """The flag of a hyperparameter named in a description; all other words are unchanged."""
    flags = {path.removeprefix(f"{HYPERPARAMETERS}."): flag for flag, path, _ in _flags()}
    return flags.get(name, name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
