"""Reads and writes the fragment of each trained parameter that a rank holds.

The fragments of all ranks together contain every parameter once, so that a checkpoint needs no
gathering. This file and `deepspeed` are the only ones that know where DeepSpeed's ZeRO stages keep
their state.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from finetune_trainer.engine.deepspeed import MOMENTS, Engine

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

WEIGHTS = "weights"
KINDS = (WEIGHTS, *MOMENTS)


@dataclass(frozen=True)
class Fragment:
    """A contiguous part of a flattened parameter: the optimizer's fp32 weights and moments."""

    name: str
    start: int
    tensors: dict[str, "Tensor"]  # by KINDS; flat, not copies

    def key(self, kind: str) -> str:
        """The name of a tensor in a shard."""
        return f"{self.name}@{self.start}#{kind}"


def own_fragments(engine: Engine) -> Iterator[Fragment]:
    """The fragments of this rank."""
    parameters = list(engine.parameters())
    if engine.zero_stage == 0:  # every rank holds all parameters: each saves some of them
        sizes = [prod(engine.shape(parameter)) for _, parameter in parameters]
        owners = share(sizes, engine.coordinates.ranks)
        for (name, parameter), owner in zip(parameters, owners, strict=True):
            if owner == engine.coordinates.rank:
                state = engine.adam_state(parameter)
                tensors = {WEIGHTS: parameter.detach(), **{key: state[key] for key in MOMENTS}}
                yield Fragment(name, 0, {kind: t.flatten() for kind, t in tensors.items()})
        return
    for name, parameter in parameters:
        found = _piece(engine, name, parameter) if engine.zero_stage == 3 else _run(name, parameter)
        if found is not None:
            yield found


def _run(name: str, parameter: Any) -> Fragment | None:
    """ZeRO 1 and 2 concatenate all parameters and cut them into one part per rank."""
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    tensors = {WEIGHTS: mapping.get_hp_fragment()}
    tensors |= {key: mapping.get_hp_fragment(optim_state_key=key) for key in MOMENTS}
    return Fragment(
        name, mapping.lp_fragment_address.start, {k: t.detach() for k, t in tensors.items()}
    )


def _piece(engine: Engine, name: str, parameter: Any) -> Fragment | None:
    """ZeRO 3 cuts each parameter into one piece per rank; the last pieces are padded."""
    from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

    size = parameter.ds_tensor.numel()
    start = size * engine.coordinates.rank
    real = min(size, prod(engine.shape(parameter)) - start)
    if real <= 0:
        return None
    tensors = {WEIGHTS: safe_get_local_fp32_param(parameter)}
    tensors |= {key: safe_get_local_optimizer_state(parameter, key) for key in MOMENTS}
    return Fragment(
        name, start, {k: t.detach().flatten().narrow(0, 0, real) for k, t in tensors.items()}
    )


def write(engine: Engine, parameter: "Parameter", whole: dict[str, "Tensor"]) -> None:
    """Write this rank's part of full fp32 tensors, by KINDS. Call `engine.start_at` before."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    shape = engine.shape(parameter)
    tensors = {kind: tensor.view(shape).to(engine.device) for kind, tensor in whole.items()}
    if engine.zero_stage == 3:
        return _write_piece(engine, parameter, tensors)
    parameter.data.copy_(tensors[WEIGHTS])
    if engine.zero_stage == 0:
        state = engine.adam_state(parameter)
        for key in MOMENTS:
            state[key].copy_(tensors[key])
        return None
    safe_set_full_fp32_param(parameter, tensors[WEIGHTS])
    for key in MOMENTS:
        safe_set_full_optimizer_state(parameter, tensors[key], key)
    return None


def _write_piece(engine: Engine, parameter: Any, whole: dict[str, "Tensor"]) -> None:
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state
    from torch.nn import functional

    size, coordinates = parameter.ds_tensor.numel(), engine.coordinates

    def mine(tensor: "Tensor") -> "Tensor":
        # safe_set_full_* fails if the number of ranks does not divide the size
        flat = functional.pad(tensor.flatten(), (0, size * coordinates.ranks - tensor.numel()))
        return flat.narrow(0, size * coordinates.rank, size)

    weights = whole[WEIGHTS]
    parameter.ds_tensor.data.copy_(mine(weights))
    if parameter.data.numel() == weights.numel():  # ZeRO 3 keeps small ones on every rank
        parameter.data.copy_(weights)
    safe_set_local_fp32_param(parameter, mine(weights))
    for key in MOMENTS:
        safe_set_local_optimizer_state(parameter, mine(whole[key]), key)


def share(sizes: Sequence[int], ranks: int) -> list[int]:
    """The rank that saves each parameter: largest first, to the rank with the least so far."""
    load = [0] * ranks
    owners = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        owners[index] = min(range(ranks), key=lambda rank: (load[rank], rank))
        load[owners[index]] += sizes[index]
    return owners
