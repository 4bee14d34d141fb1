"""The flags of `finetune models serve`: fields of spec.serve, with the bounds of the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from finetune_api.finetune_spec import DNS_LABEL, Spec
from finetune_api.quantities import parse_quantity
from finetune_api.serving import Serve, ServeResources
from finetune_api.wire import JsonObject
from finetune_cli.terminal.format import duration

Function = TypeVar("Function", bound=Callable[..., Any])

FIELDS = {
    "runtime": "runtime",
    "replicas": "replicas",
    "min_replicas": "minReplicas",
    "idle": "idleSeconds",
}
RESOURCES = ("gpus", "cpu", "memory")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,7})([smhd])")
_RUNTIME_CHARACTERS = 63


def serve_flags(function: Function) -> Function:
    """Add a flag for each field of spec.serve, without a default."""
    for option in reversed(_options()):
        function = option(function)
    return function


def given_fields(given: Mapping[str, Any]) -> JsonObject:
    """The fields of spec.serve that were given. given: values by click's parameter names."""
    fields = {field: given[name] for name, field in FIELDS.items() if given[name] is not None}
    resources = {name: given[name] for name in RESOURCES if given[name] is not None}
    return {**fields, "resources": resources} if resources else fields


def _options() -> list[Callable[[Function], Function]]:
    return [
        click.option(
            "--runtime",
            metavar="NAME",
            callback=_runtime,
            help="Runtime of the chart value serving.runtimes.  [default: the first one]",
        ),
        click.option(
            "--replicas",
            metavar="N",
            type=_range(Serve, "replicas"),
            help="Number of pods while the model is awake.  [default: 1]",
        ),
        click.option(
            "--min-replicas",
            metavar="N",
            type=_range(Serve, "min_replicas"),
            help="Number of pods that remain without requests; 0: the model sleeps, and the next "
            "request through the gateway wakes it.  [default: --replicas]",
        ),
        click.option(
            "--idle",
            metavar="DURATION",
            callback=_idle_seconds,
            help="Time without requests through the gateway after which only --min-replicas pods "
            "remain, such as 90s, 15m, or 2h.  [default: 15m]",
        ),
        click.option(
            "--gpus",
            metavar="N",
            type=_range(ServeResources, "gpus"),
            help="GPUs of each pod.  [default: those of the runtime]",
        ),
        click.option(
            "--cpu",
            metavar="QUANTITY",
            callback=_quantity,
            help="CPUs of each pod, such as 2 or 500m.  [default: those of the runtime]",
        ),
        click.option(
            "--memory",
            metavar="QUANTITY",
            callback=_quantity,
            help="Memory of each pod, such as 32Gi.  [default: that of the runtime]",
        ),
    ]


def _range(kind: type[Spec], field: str) -> click.IntRange:
    """The numbers that the API accepts for a field."""
    least, most = _bounds(kind, field)
    return click.IntRange(least, most)


def _bounds(kind: type[Spec], field: str) -> tuple[int, int]:
    rules = kind.model_fields[field].metadata
    found = {
        key: getattr(rule, key) for rule in rules for key in ("ge", "le") if hasattr(rule, key)
    }
    return found["ge"], found["le"]


def _runtime(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """The name of a runtime. Raises click.BadParameter for a text that can be none."""
    if text is None:
        return None
    if len(text) > _RUNTIME_CHARACTERS or re.fullmatch(DNS_LABEL, text) is None:
        raise click.BadParameter(
            f"{text!r:.40} must be the name of a runtime: lower-case letters, digits, and dashes"
        )
    return text


def _quantity(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A quantity of Kubernetes as it was written. Raises click.BadParameter."""
    if text is None:
        return None
    try:
        parse_quantity(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return text


def _idle_seconds(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """The seconds in `15m`. Raises click.BadParameter."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter(
            f"{text!r:.40} must be a number with a unit: s, m, h, or d, such as 15m"
        )
    seconds = int(found[1]) * _SECONDS[found[2]]
    least, most = _bounds(Serve, "idle_seconds")
    if not least <= seconds <= most:
        raise click.BadParameter(
            f"{text} must be at least {duration(least)} and at most {duration(most)}"
        )
    return seconds
