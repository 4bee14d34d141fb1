"""A whole pod with an 8B adapter: the host memory and the seconds of merging and publishing."""

from __future__ import annotations

from collections.abc import Iterator

from bench.gpu import pods
from bench.gpu.device import Device
from bench.gpu.models import sizes
from bench.gpu.results import Measurement
from bench.gpu.training import lora
from finetune_api.names import Stage

MODEL = "8B"
LENGTH, TOKENS, STEPS = 1024, 8192, 2
GATHERING = "gathering the model weights"
UPLOADING = "uploading "
PUBLISHING = f"{Stage.PUBLISHING}: "  # and its detail


def measure(device: Device) -> Iterator[Measurement]:
    lengths = sizes(device, LENGTH, TOKENS * STEPS)
    batch = len(lengths) // STEPS
    task = pods.prepare(device, MODEL, lengths, batch_size=batch, method=lora())
    written = sum(path.stat().st_size for path in (device.folder / "inputs/model").iterdir())
    pod = pods.run(task, device.folder / "pod")
    if pod.outcome is None or pod.outcome.trained is None:
        raise RuntimeError(f"the pod published nothing: {pod.log[-1500:]}")
    gathering = pod.when(GATHERING)
    yield Measurement("from the start to the first step", first_step(pod), "s")
    yield Measurement("merging and writing", pod.when(UPLOADING) - gathering, "s")
    yield Measurement("merging, writing, and uploading", pod.seconds - gathering, "s")
    during = [peak for stage, peak in pod.peaks.items() if stage.startswith(PUBLISHING)]
    before = [peak for stage, peak in pod.peaks.items() if not stage.startswith(PUBLISHING)]
    details = {"peaks": pod.peaks, "bytes of the base model": written}
    yield Measurement(
        "rank's peak memory while publishing", max(during) / 2**30, "GiB", details=details
    )
    yield Measurement("rank's peak memory before", max(before) / 2**30, "GiB")


def first_step(pod: pods.PodRun) -> float:
    """Seconds to the line of the first step, which includes the load of the weights."""
    return pod.when("step 1/")
