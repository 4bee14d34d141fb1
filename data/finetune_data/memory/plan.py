"""Chooses the ZeRO stage and the offload mode whose estimated memory fits. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from finetune_api.tasks import MethodRef, Offload, RankResources
from finetune_data.memory.activations import activation_bytes
from finetune_data.memory.node import GIB, Node, estimate_node
from finetune_data.memory.shape import ModelShape
from finetune_data.memory.states import states, weight_bytes

USABLE = 0.9  # of a GPU's memory: the rest is fragmentation and other libraries' buffers
CONTEXT_BYTES = 1.5 * GIB  # CUDA's and NCCL's own
SMALLER = 0.98  # a fallback plan saves more than the estimate may be wrong about
DEFAULT_STAGE = 1  # if the memory of the GPU is not known


@dataclass(frozen=True)
class Plan:
    """The distribution of a model over the ranks, and the memory that it needs."""

    zero_stage: int
    offload: Offload
    peak: float  # bytes of one rank on its device
    node: Node

    @property
    def gib(self) -> float:
        return in_gib(self.peak)

    def with_dataset(self, size: int) -> Plan:
        """The plan with a dataset of this size in bytes."""
        return replace(self, node=self.node.with_dataset(size))


def in_gib(size: float) -> float:
    """Bytes in GiB, with two decimals."""
    return round(size / GIB, 2)


def estimate(
    shape: ModelShape,
    workers: RankResources,
    method: MethodRef,
    *,
    tokens: int,
    zero_stage: int,
    offload: Offload = "none",
) -> Plan:
    """The memory of a plan. tokens: the length of the longest micro-batch."""
    held = states(shape, workers, method, zero_stage=zero_stage, offload=offload)
    peak = held.backward + activation_bytes(shape, method, tokens, weight_bytes(workers))
    peak = max(peak, held.step)
    if workers.accelerator == "nvidia":
        peak += CONTEXT_BYTES
    node = estimate_node(
        shape, workers, method, rank_memory=peak, zero_stage=zero_stage, offload=offload
    )
    return Plan(zero_stage, offload, peak, node)


def choose_plan(
    shape: ModelShape,
    workers: RankResources,
    method: MethodRef,
    tokens: int,
    *,
    is_tight: bool = False,
) -> Plan | None:
    """The fastest plan that fits and has the settings that the user fixed; None if none fits.

    On CPU, or if the memory of the GPU is not known, no plan is refused for its GPUs, and nothing
    is offloaded unless the user requests it. is_tight: the pod's memory, if the user sets it, may
    be below the estimate, but not below what the training certainly needs.
    """
    plans = list(_plans(shape, workers, method, tokens))
    if workers.accelerator != "nvidia" or workers.gpu_memory_gib is None:
        wanted = DEFAULT_STAGE if workers.zero_stage is None else workers.zero_stage
        here = [plan for plan in plans if plan.offload == "none"] or plans
        plans = [next((plan for plan in here if plan.zero_stage == wanted), here[0])]
    for plan in plans:
        if fits_gpu(plan, workers) and fits_node(plan, workers, is_tight=is_tight):
            return plan
    return None


def fits_gpu(plan: Plan, workers: RankResources) -> bool:
    """Whether one rank fits the GPU. A GPU of unknown size fits everything."""
    if workers.accelerator != "nvidia" or workers.gpu_memory_gib is None:
        return True
    return plan.peak <= USABLE * workers.gpu_memory_gib * GIB


def fits_node(plan: Plan, workers: RankResources, *, is_tight: bool = False) -> bool:
    """Whether the pod's memory, if the user sets it, is sufficient. is_tight: see `choose_plan`."""
    if workers.memory_gib is None:
        return True
    needed = plan.node.least_memory if is_tight else plan.node.memory
    return needed <= workers.memory_gib * GIB


def smallest_plan(
    shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int
) -> Plan:
    """The plan that needs the least memory and has the settings that the user fixed."""
    return min(_plans(shape, workers, method, tokens), key=lambda plan: plan.peak)


def fallback_plans(
    shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int, plan: Plan
) -> list[Plan]:
    """The plans to use instead of `plan` if it runs out of memory, the largest first.

    Each needs less memory of a GPU than the one before it, and has the settings that the user
    fixed. On CPU there are none: every plan shares one memory.
    """
    if workers.accelerator != "nvidia":
        return []
    found: list[Plan] = []
    least = plan.peak
    for other in sorted(_plans(shape, workers, method, tokens), key=lambda other: -other.peak):
        if other.peak < SMALLER * least and fits_node(other, workers, is_tight=True):
            found.append(other)
            least = other.peak
    return found


def _plans(
    shape: ModelShape, workers: RankResources, method: MethodRef, tokens: int
) -> Iterator[Plan]:
    # without ZeRO, the engine uses ZeRO 1 on GPUs
    least = 0 if workers.accelerator == "cpu" else 1
    modes: list[tuple[int, Offload]] = [(stage, "none") for stage in range(least, 4)]
    modes += [(stage, "optimizer") for stage in (1, 2, 3)] + [(3, "parameters")]
    offload = workers.offload
    if workers.ranks == 1:  # nothing is shared
        modes = [(0, "none"), (1, "optimizer"), (3, "optimizer"), (3, "parameters")]
        if workers.zero_stage is not None:
            modes = [(workers.zero_stage, mode[1]) for mode in modes]
    chosen = [
        (stage, where)
        for stage, where in modes
        if workers.zero_stage in {None, stage} and offload in {None, where}
    ]
    if not chosen:  # the user requests a combination that is not on the list
        stage = DEFAULT_STAGE if workers.zero_stage is None else workers.zero_stage
        chosen = [(stage, offload or "none")]
    for stage, where in chosen:
        yield estimate(shape, workers, method, tokens=tokens, zero_stage=stage, offload=where)
