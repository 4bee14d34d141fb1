"""The sections on throughput, memory, and overhead; each yields lines of the table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench.table import Line
from bench.trainer import s3_server, workload
from bench.trainer.measurement import (
    DEEPSPEED,
    SUBJECT,
    WARM_UP,
    Settings,
    excess,
    run,
    run_trl,
    tokens_per_second,
)

Baseline = tuple[str, str]  # mode and head of `trl_baseline`
LABELS = {"fused": "TRL {}", "whole": "Trainer, {}, whole logits"}  # `whole` uses TRL's batches
# Steps after the warm-up: a padded one takes the longest. Three rounds take about 12 minutes.
STEPS = {"packing": 12, "padding_free": 6, "group_by_length": 2, "padded": 5}
TARGETS = {"packing": ">= 1.1", "padded": ">= 2.5"}  # compared with the faster head


def throughput(settings: Settings) -> Iterator[Line]:
    """Real tokens per second, compared with TRL packed and TRL padded, each with its better head.

    `group_by_length` starts with the longest batches, and only those are measured, so it has no
    target.
    """
    folder = workload.write(
        settings.folder / "throughput", count=640, vocabulary=32_000, shape=workload.SMALL
    )
    options: dict[str, list[str]] = {"ours": [], "ours, padded": ["--padded"]}
    subject: dict[str, list[float]] = {name: [] for name in options}
    baselines: dict[Baseline, list[float]] = {
        (mode, head): []
        for mode in (["packing"] if settings.is_quick else STEPS)
        for head in LABELS
        if head == "fused" or mode in TARGETS
    }
    with s3_server.s3(settings.folder / "throughput-s3"):
        for number in range(settings.rounds):
            title = f"throughput, round {number + 1} of {settings.rounds}"
            for name, values in subject.items():
                settings.print(f"{title}: {name}")
                found = run(folder, "--steps", settings.steps(12), *options[name])
                values.append(tokens_per_second(found))
            for (mode, head), values in baselines.items():
                settings.print(f"{title}: {LABELS[head].format(mode)}")
                found = run_trl(mode, head, settings.steps(STEPS[mode]), folder)
                values.append(tokens_per_second(found))
    yield from (Line("throughput", name, values, "tokens/s") for name, values in subject.items())
    packed = statistics.median(subject["ours"])
    medians = {baseline: statistics.median(values) for baseline, values in baselines.items()}
    for (mode, head), values in baselines.items():
        is_best = medians[mode, head] == max(medians.get((mode, other), 0.0) for other in LABELS)
        target = TARGETS.get(mode) if is_best else None
        ratio = packed / medians[mode, head]
        yield Line("throughput", LABELS[head].format(mode), values, "tokens/s", ratio, target)


def memory(settings: Settings) -> Iterator[Line]:
    """Peak memory for growing vocabularies, at about 2,000 tokens per step without padding."""
    for vocabulary in (128_000,) if settings.is_quick else (32_000, 64_000, 128_000):
        folder = workload.write(
            settings.folder / f"memory-{vocabulary}",
            count=64,
            vocabulary=vocabulary,
            shape=workload.TINY,
        )
        subject: list[float] = []
        baselines: dict[Baseline, list[float]] = {("padding_free", head): [] for head in LABELS}
        with s3_server.s3(settings.folder / f"memory-{vocabulary}-s3"):
            for _ in range(settings.rounds):
                settings.print(f"memory with a vocabulary of {vocabulary:,}")
                subject.append(run(folder, "--steps", 3, "--batch", 13)["peak_mb"])
                for (mode, head), peaks in baselines.items():
                    peaks.append(run_trl(mode, head, 3, folder, batch=13)["peak_mb"])
        part = f"memory, {vocabulary // 1000}k"
        yield Line(part, "ours", subject, "MB")
        medians = {baseline: statistics.median(peaks) for baseline, peaks in baselines.items()}
        best = min(medians, key=medians.__getitem__)
        for (mode, head), value in medians.items():
            ratio = statistics.median(subject) / value
            target = "<= 1.0" if (mode, head) == best else None
            if head == "whole" and vocabulary == 128_000:
                target = "<= 0.6"
            label = LABELS[head].format(mode)
            yield Line(part, label, baselines[mode, head], "MB", ratio, target)


def overhead(settings: Settings) -> Iterator[Line]:
    """Milliseconds per step that the training loop adds to DeepSpeed for 0.1 M parameters."""
    folder = workload.write(  # all steps are within one epoch, so there is no checkpoint
        settings.folder / "overhead", count=1600, vocabulary=300, shape=workload.TINY
    )
    size = ("--steps", settings.steps(150), "--batch", 4)
    with s3_server.s3(settings.folder / "overhead-s3"):
        for stage in (1,) if settings.is_quick else (0, 1, 2, 3):
            differences = []
            for number in range(settings.rounds):
                settings.print(f"overhead, ZeRO {stage}, round {number + 1} of {settings.rounds}")
                subject, baseline = (
                    run(folder, *size, "--zero-stage", stage, module=module)["seconds"]
                    for module in (SUBJECT, DEEPSPEED)
                )
                differences.append(1000 * excess(subject[WARM_UP:], baseline[WARM_UP:]))
            value = statistics.median(differences)
            name = f"ours over bare DeepSpeed, ZeRO {stage}"
            yield Line("overhead", name, differences, "ms", value, "<= 2.0")
