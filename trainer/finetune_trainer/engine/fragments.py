"""Reads and writes the fragment of each trained parameter that a rank holds.

The fragments of all ranks together contain every parameter once, so that a checkpoint needs no
gathering. This file and `deepspeed` are the only ones that know where DeepSpeed's ZeRO stages keep
their state.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from finetune_trainer.engine.deepspeed import MOMENTS, Engine

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "weights"
KINDS = (WEIGHTS, *MOMENTS)


@dataclass(frozen=True)
class Fragment:
    """A contiguous part of a flattened parameter: the optimizer's fp32 weights and moments."""

    name: str
    start: int
    tensors: dict[str, "Tensor"]  # by KINDS; flat; the optimizer's memory, not copies

    def key(self, kind: str) -> str:
        """The name of a tensor in a shard."""
        return f"{self.name}@{self.start}#{kind}"


def own_fragments(engine: Engine) -> Iterator[Fragment]:
    """The fragments of this rank."""
    if engine.zero_stage == 0:  # every rank holds all parameters: each saves some of them
        for (name, parameter), owner in zip(engine.parameters(), _owners(engine), strict=True):
            if owner == engine.coordinates.rank:
                state = engine.adam_state(parameter)
                tensors = {WEIGHTS: parameter.detach(), **{key: state[key] for key in MOMENTS}}
                yield Fragment(name, 0, {kind: t.view(-1) for kind, t in tensors.items()})
        return
    for name, parameter in engine.parameters():
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
    size = parameter.ds_tensor.numel()
    start = size * engine.coordinates.rank
    real = min(size, prod(engine.shape(parameter)) - start)
    if real <= 0:
        return None
    # safe_get_local_* would copy an offloaded optimizer's state to the GPU
    state = functools.partial(
        parameter._z3_optimizer._get_fp32_opt_state_partition,
        *(parameter, True),  # keeps no buffers of NVMe
    )
    tensors = {WEIGHTS: state()[0], **{key: state(key)[0] for key in MOMENTS}}
    return Fragment(
        name, start, {k: t.detach().view(-1).narrow(0, 0, real) for k, t in tensors.items()}
    )


def complete(engine: Engine) -> None:
    """Update the model on all ranks after every rank has written to its own fragments."""
    if engine.zero_stage == 0:
        _exchange(engine)
    elif engine.zero_stage == 3:
        _update_pieces(engine)
    else:
        engine.optimizer.update_lp_params()


def _exchange(engine: Engine) -> None:
    """Send each parameter and its moments from the rank that saves it to the others."""
    import torch

    if engine.coordinates.ranks == 1:
        return
    for (_, parameter), owner in zip(engine.parameters(), _owners(engine), strict=True):
        state = engine.adam_state(parameter)
        for tensor in (parameter.detach(), *(state[key] for key in MOMENTS)):
            torch.distributed.broadcast(tensor, owner)


def _update_pieces(engine: Engine) -> None:
    """Round the fp32 weights to the pieces that forward passes gather."""
    engine.optimizer.checkpoint_event_prologue()  # frees the small ones that every rank keeps
    pieces: Iterator[tuple[str, Any]] = engine.parameters()
    for name, parameter in pieces:
        if (found := _piece(engine, name, parameter)) is not None:
            weights = found.tensors[WEIGHTS]
            parameter.ds_tensor.data.view(-1)[: weights.numel()].copy_(weights)
    engine.optimizer.checkpoint_event_epilogue()  # gathers the small ones again


def _owners(engine: Engine) -> list[int]:
    """In ZeRO 0, the rank that saves each parameter."""
    sizes = [prod(engine.shape(parameter)) for _, parameter in engine.parameters()]
    return share(sizes, engine.coordinates.ranks)


def share(sizes: Sequence[int], ranks: int) -> list[int]:
    """The rank that saves each parameter: largest first, to the rank with the least so far."""
    load = [0] * ranks
    owners = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        owners[index] = min(range(ranks), key=lambda rank: (load[rank], rank))
        load[owners[index]] += sizes[index]
    return owners
