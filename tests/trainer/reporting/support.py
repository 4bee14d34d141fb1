"""Report data for tests, with curves of any length."""

import math
import random
from collections.abc import Sequence
from typing import Any

from finetune_api.outcome import EpochMetrics
from finetune_api.tasks import Classification
from finetune_data.lookup.provenance import RunManifest
from finetune_data.read.sources import InputFile
from finetune_data.tokenize.dataset import (
    DatasetManifest,
    DatasetSource,
    FileShare,
    SplitCounts,
)
from finetune_trainer.evaluation import class_metrics
from finetune_trainer.outputs.results_csv import columns, line
from finetune_trainer.reporting.report_data import ReportData
from tests.trainer import support

BINARY = Classification(n_classes=2, positive_class=" yes", betas=[0.5])


def results(
    steps: int,
    *,
    epochs: int = 4,
    validation: bool = True,
    asked: Classification | None = None,
    changes: dict[int, dict[str, float]] | None = None,
    seed: int = 1,
) -> str:
    """results.csv of a good run; changes: cells by step."""
    names = columns(validation, class_metrics.columns(asked) if asked else ())
    noise = random.Random(seed)
    lines = [",".join(names)]
    ends = epoch_ends(steps, epochs)
    for step in range(1, steps + 1):
        learned = 1 - math.exp(-4 * step / steps)
        loss = 3.2 - 2.6 * learned + noise.gauss(0, 0.12)
        cells: dict[str, float | None] = {
            "step": step,
            "elapsed_tokens": step * 812,
            "elapsed_examples": step * 8,
            "training_loss": loss,
            "training_completion_loss": loss * 0.9,
            "training_token_accuracy": min(1, 0.4 + 0.5 * learned + noise.gauss(0, 0.03)),
            "training_sequence_accuracy": min(1, 0.15 + 0.6 * learned + noise.gauss(0, 0.03)),
            "learning_rate": 2e-5 * min(1, 10 * step / steps) * (1 - 0.9 * step / steps),
            "gradient_norm": 1 + 3 * math.exp(-9 * step / steps) + abs(noise.gauss(0, 0.2)),
        }
        if validation and (step % 8 == 1 or step in ends):
            cells |= {
                "validation_loss": loss + 0.2,
                "validation_completion_loss": loss + 0.15,
                "validation_token_accuracy": 0.38 + 0.45 * learned,
                "validation_sequence_accuracy": 0.1 + 0.5 * learned,
            }
        if asked and step in ends:
            cells |= dict.fromkeys(class_metrics.columns(asked), 0.5 + 0.4 * learned)
        cells |= (changes or {}).get(step, {})
        lines.append(line(cells, names))
    return "\n".join(lines) + "\n"


def epoch_ends(steps: int, epochs: int) -> list[int]:
    return [max(1, steps * epoch // epochs) for epoch in range(1, epochs + 1)]


def epoch_metrics(
    steps: int, training: Sequence[float], validation: Sequence[float | None]
) -> list[EpochMetrics]:
    """Metrics of an epoch for each pair of losses."""
    ends = epoch_ends(steps, len(training))
    return [
        EpochMetrics(
            epoch=number,
            step=end,
            training_loss=trained,
            validation_loss=validated,
            validation_token_accuracy=None if validated is None else 0.8,
            validation_sequence_accuracy=None if validated is None else 0.6,
            learning_rate=1e-5,
        )
        for number, (end, trained, validated) in enumerate(
            zip(ends, training, validation, strict=True), 1
        )
    ]


def dataset(**changes: Any) -> DatasetManifest:
    """A dataset of 2,000 training and 200 validation examples."""
    source = DatasetSource(
        tokenizer_sha256="0" * 64,
        context_length=2048,
        inputs={
            name: InputFile(
                uri=f"s3://acme/{name}.jsonl", etag="abc", size=1_234_567, sha256=digest * 64
            )
            for name, digest in (("train", "1"), ("validation", "2"))
        },
    )
    splits = {
        "train": SplitCounts(
            examples=2000, tokens=203_000, prompt_tokens=120_000, longest_example=731, lines=2000
        ),
        "validation": SplitCounts(
            examples=200, tokens=20_300, prompt_tokens=12_000, longest_example=611, lines=200
        ),
    }
    return DatasetManifest(source=source, splits=splits, files=[]).replace(**changes)


def mixed() -> DatasetManifest:
    """A dataset of two training files, 3 : 1."""
    whole = dataset()
    known = whole.source.inputs["train"]
    inputs = {f"train-{n}": known.replace(uri=f"s3://acme/{n}.jsonl") for n in range(2)}
    shares = [
        FileShare(input="train-0", weight=3, lines=1502, skipped_lines=2, examples=1500,
                  epoch_examples=1500),
        FileShare(input="train-1", weight=1, lines=150, examples=150, epoch_examples=500),
    ]  # fmt: skip
    source = whole.source.replace(inputs=inputs, weights=[3, 1])
    return whole.replace(source=source, training_files=shares)


def without_validation() -> DatasetManifest:
    whole = dataset()
    source = whole.source.replace(inputs={"train": whole.source.inputs["train"]})
    return whole.replace(source=source, splits={"train": whole.splits["train"]})


def run(**changes: Any) -> RunManifest:
    """The manifest of a run on two nodes."""
    task = support.train_task("0123456789")
    return RunManifest(
        run=task.run,
        attempt=1,
        base=task.base,
        hyperparameters=support.hyperparameters(
            n_epochs=4, learning_rate=1e-4, learning_rate_multiplier=0.1
        ),
        dataset={},
        splits={},
        nodes=2,
        processes_per_node=1,
        accelerator="cpu",
        zero_stage=1,
        precision="fp32",
        versions={"python": "3.11.2", "torch": "2.13.0"},
    ).replace(**changes)


def report(steps: int = 1000, **changes: Any) -> ReportData:
    """A good run of four epochs."""
    return ReportData(
        run=run(),
        dataset=dataset(),
        results=results(steps),
        name="ada:ft-your-org:custom-model-name-2026-02-15-04-21-04",
        published="2026-02-15T04:21:04+00:00",
        epochs=epoch_metrics(steps, [2.2, 1.2, 0.85, 0.7], [1.6, 1.1, 0.95, 0.94]),
    ).replace(**changes)
