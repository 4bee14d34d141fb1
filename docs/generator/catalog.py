"""The operator's message catalog, each message with `...` for its arguments."""

import inspect
from collections.abc import Iterator
from functools import cache
from itertools import product
from types import UnionType
from typing import Any, get_args, get_type_hints

from finetune_api.finetune_status import ErrorInfo
from finetune_api.outcome import EpochMetrics
from finetune_operator import messages
from finetune_operator.messages import Disruption, Event, StatusMessage

GAP = "..."


class _Integer(int):
    """A number that is printed as a gap."""

    def __format__(self, _: str) -> str:
        return GAP

    def __str__(self) -> str:
        return GAP

    def __sub__(self, other: int) -> "_Integer":
        return _Integer(int(self) - other)


class _Float(float):
    def __format__(self, _: str) -> str:
        return GAP


@cache
def events() -> list[Event]:
    """The Events. The reason of the one on a failure is empty: it is that of the failure."""
    return [item for item in _rendered() if isinstance(item, Event)]


@cache
def status_messages() -> list[StatusMessage]:
    return [item for item in _rendered() if isinstance(item, StatusMessage) and item.reason]


@cache
def errors() -> list[ErrorInfo]:
    return [item for item in _rendered() if isinstance(item, ErrorInfo)]


def _rendered() -> Iterator[Any]:
    for name, item in vars(messages).items():
        is_own = inspect.isfunction(item) and item.__module__.startswith(messages.__name__)
        if is_own and not name.startswith("_"):
            yield from _variants(item)
        else:
            yield item


def _variants(function: Any) -> list[Any]:
    """The results for all kinds of arguments, without those that only leave out a part."""
    hints = get_type_hints(function)
    hints.pop("return")
    choices = [_examples(hint) for hint in hints.values()]
    results = {
        indexes: function(**dict(zip(hints, values, strict=True)))
        for indexes, values in zip(
            product(*(range(len(items)) for items in choices)), product(*choices), strict=True
        )
    }
    texts = {indexes: getattr(result, "message", "") for indexes, result in results.items()}
    kept: dict[str, Any] = {}
    for indexes, text in texts.items():
        fuller = (
            other
            for others, other in texts.items()
            if sum(a != b for a, b in zip(indexes, others, strict=True)) == 1
        )
        if not any(_leaves_out_part(text, other) for other in fuller):
            kept.setdefault(_key(results[indexes]), results[indexes])
    return list(kept.values())


def _key(result: Any) -> str:
    """Equal for results that differ only in the numbers that are printed as gaps."""
    reason = getattr(result, "reason", getattr(result, "code", ""))
    return f"{reason} {getattr(result, 'message', result)}"


def _leaves_out_part(text: str, longer: str) -> bool:
    """Whether `text` is `longer` without one part in the middle or at the end."""
    if len(text) >= len(longer):
        return False
    start = next(
        (index for index, pair in enumerate(zip(text, longer, strict=False)) if len(set(pair)) > 1),
        len(text),
    )
    part = longer[start : start + len(longer) - len(text)]
    return GAP in part and longer.endswith(text[start:])


def _examples(annotation: Any) -> list[Any]:
    if isinstance(annotation, UnionType):
        return [value for kind in get_args(annotation) for value in _examples(kind)]
    if annotation is Disruption:
        return list(Disruption)
    return {
        str: [GAP],
        int: [_Integer(2), _Integer(137)],
        float: [_Float(1)],
        bool: [True, False],
        type(None): [None],
        ErrorInfo: [ErrorInfo(code="", message=GAP)],
        EpochMetrics: [
            EpochMetrics.model_construct(
                epoch=_Integer(1),
                training_loss=_Float(1),
                validation_loss=_Float(1),
                validation_sequence_accuracy=_Float(1),
                learning_rate=_Float(1),
            )
        ],
    }[annotation]
