"""The flags of `create` that are fields of the spec: one table, old spellings included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

HYPERPARAMETERS = "hyperparameters"


class FloatList(click.ParamType[list[float]]):
    """`0.6,1,1.5`, or the old tool's `0.6 1 1.5` (see `join_betas`)."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[float]:
        try:
            return [float(part) for part in str(value).replace(",", " ").split()]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.5,1,2", param, ctx)


# (flag, path in the spec, type, help); a flag that is not given changes nothing
FIELDS: tuple[tuple[str, str, Any, str], ...] = (
    ("--n-epochs", f"{HYPERPARAMETERS}.nEpochs", int, "Passes over the training file."),
    ("--batch-size", f"{HYPERPARAMETERS}.batchSize", int, "Examples an optimizer step."),
    (
        "--learning-rate-multiplier",
        f"{HYPERPARAMETERS}.learningRateMultiplier",
        float,
        "Times the base model's own rate.",
    ),
    ("--learning-rate", f"{HYPERPARAMETERS}.learningRate", float, "Absolute, instead."),
    (
        "--prompt-loss-weight",
        f"{HYPERPARAMETERS}.promptLossWeight",
        float,
        "Of prompt tokens; completions weigh 1.",
    ),
    (
        "--classification-n-classes",
        f"{HYPERPARAMETERS}.classificationNClasses",
        int,
        "How many classes there are.",
    ),
    (
        "--classification-positive-class",
        f"{HYPERPARAMETERS}.classificationPositiveClass",
        str,
        "Of two classes.",
    ),
    (
        "--classification-betas",
        f"{HYPERPARAMETERS}.classificationBetas",
        FloatList(),
        "An F-beta column each.",
    ),
    (
        "--max-sequence-length",
        f"{HYPERPARAMETERS}.maxSequenceLength",
        int,
        "Tokens an example may have.",
    ),
    ("--seed", f"{HYPERPARAMETERS}.seed", int, "Of the order of examples."),
    ("--method", "method.type", click.Choice(["full", "lora"]), "All weights, or an adapter."),
    ("--lora-rank", "method.rank", int, "Of a LoRA adapter."),
    ("--nodes", "resources.nodes", int, "Pods, one a node."),
    ("--gpus-per-node", "resources.gpusPerNode", int, "0 trains on CPU."),
    ("--runtime", "runtime", str, "Of the chart's list."),
    ("--queue-name", "queueName", str, "Kueue's local queue."),
    ("--secret-name", "storage.secretName", str, "Secret with the S3 credentials."),
    ("--output-to", "output", str, "s3:// prefix of all results."),
    ("--max-restarts", "maxRestarts", int, "Attempts after the first."),
)
SWITCHES: tuple[tuple[str, str, str], ...] = (
    (
        "--compute-classification-metrics",
        f"{HYPERPARAMETERS}.computeClassificationMetrics",
        "Accuracy, F1, AUROC and AUPRC on the validation file.",
    ),
    ("--check-only", "dryRun", "Check the data and plan in the cluster; train nothing."),
)


def field_flags(function: Function) -> Function:
    """Every flag of the two tables."""
    for flag, _, words in reversed(SWITCHES):
        function = click.option(flag, is_flag=True, default=None, help=words)(function)
    for flag, _, kind, words in reversed(FIELDS):
        function = click.option(flag, type=kind, default=None, help=words)(function)
    return function


def field_values(given: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(path, value) of the flags that were given; given: by click's parameter names."""
    paths = [(flag, path) for flag, path, *_ in (*FIELDS, *SWITCHES)]
    named = [(flag.removeprefix("--").replace("-", "_"), path) for flag, path in paths]
    return [(path, given[name]) for name, path in named if given.get(name) is not None]


def join_betas(arguments: list[str]) -> list[str]:
    """The old tool's `--classification_betas 0.6 1 2` as one value with commas."""
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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
