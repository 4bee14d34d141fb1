"""The configurations of the page "What fits where", with three sizes of host memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from docs.generator.memory import CARDS, CONFIGS, METHODS, RANKS, TOKENS, shape, workers
from finetune_api.tasks import Offload, RankResources
from finetune_data.memory.node import CHECKPOINT_BYTES, GIB, LAUNCHER_BYTES
from finetune_data.memory.plan import CONTEXT_BYTES, Plan, choose_plan
from finetune_data.memory.states import trained_parameters
from tests.trainer.virtual_gpu.combinations import MODES

HOSTS = (64, 256, 1024)  # GiB of a pod
REFUSED_GPU, REFUSED_HOST = 0.75, 0.85  # every refused configuration needs more in each mode


class Configuration(NamedTuple):
    model: str
    method: str
    ranks: int
    card: int  # GiB of a GPU
    tokens: int  # of the longest example
    host: int  # GiB of a pod

    @property
    def resources(self) -> RankResources:
        return workers(self.ranks, self.card, self.host)

    def shares(self, device: float, host: float, rank_bytes: float) -> tuple[float, float]:
        """What is needed of a GPU, and of a pod's memory.

        device, host: bytes of a rank. rank_bytes: of its process, without the states.
        """
        here = self.resources.processes_per_node
        trained = trained_parameters(shape(self.model), METHODS[self.method])
        checkpoint = CHECKPOINT_BYTES * trained / self.ranks
        pod = LAUNCHER_BYTES + here * (rank_bytes + host + checkpoint)
        return (device + CONTEXT_BYTES) / (self.card * GIB), pod / (self.host * GIB)


class Mode(NamedTuple):
    """What the memory of a rank depends on, next to the number of tokens."""

    model: str
    method: str
    ranks: int
    stage: int
    offload: Offload

    @property
    def minimum(self) -> tuple[float, float]:
        """Bytes of a GPU and of the host without any buffer.

        bf16 weights, fp32 gradients and weights, and two moments. Only ZeRO 3 offloads gradients.
        """
        parameters = shape(self.model).parameters
        trained = trained_parameters(shape(self.model), METHODS[self.method])
        weights = 2.0 * parameters / (self.ranks if self.stage == 3 else 1)
        gradients = 4.0 * trained / (self.ranks if self.stage > 1 else 1)
        optimizer = 12.0 * trained / self.ranks
        if self.offload == "none":
            return weights + gradients + optimizer, 0
        if self.stage < 3:
            return weights + gradients, optimizer
        if self.offload == "optimizer":
            return weights, optimizer
        return 0, weights + optimizer


CONFIGURATIONS = [
    Configuration(*of) for of in product(CONFIGS, METHODS, RANKS, CARDS, TOKENS, HOSTS)
]


@cache
def accepted() -> dict[Configuration, Plan]:
    """The plans of the configurations that the data check accepts without a warning."""
    plans = {of: _choose(of, is_tight=False) for of in CONFIGURATIONS}
    return {of: plan for of, plan in plans.items() if plan is not None}


@cache
def warned() -> dict[Configuration, Plan]:
    """Those of configurations whose host memory is below the estimate of any plan.

    The data check accepts them with a warning if it is above what is certain.
    """
    plans = {of: _choose(of, is_tight=True) for of in CONFIGURATIONS if of not in accepted()}
    return {of: plan for of, plan in plans.items() if plan is not None}


def refused() -> list[Configuration]:
    return [of for of in CONFIGURATIONS if of not in accepted() and of not in warned()]


def _choose(of: Configuration, *, is_tight: bool) -> Plan | None:
    method = METHODS[of.method]
    return choose_plan(shape(of.model), of.resources, method, of.tokens, is_tight=is_tight)


def mode_of(of: Configuration, plan: Plan) -> Mode:
    """The engine makes ZeRO 1 of ZeRO 0."""
    return Mode(of.model, of.method, of.ranks, max(1, plan.zero_stage), plan.offload)


def modes(of: Configuration) -> Iterator[Mode]:
    """All modes, whether the data check considers them or not."""
    for stage, offload in MODES:
        yield Mode(of.model, of.method, of.ranks, stage, offload)


def is_too_much(of: Configuration, device: float, host: float, rank_bytes: float) -> bool:
    """Whether the bytes of a rank justify a refusal."""
    gpu, pod = of.shares(device, host, rank_bytes)
    return gpu > REFUSED_GPU or pod > REFUSED_HOST


@cache
def measured_modes() -> list[Mode]:
    """The modes of plans, and those of refused configurations that the minimum does not exclude."""
    found = {mode_of(of, plan) for of, plan in (accepted() | warned()).items()}
    for of in refused():
        found |= {mode for mode in modes(of) if not is_too_much(of, *mode.minimum, rank_bytes=0)}
    return sorted(found)
