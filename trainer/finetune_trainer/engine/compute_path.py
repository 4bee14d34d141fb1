"""Which way of computing a model is right for it: tried on its own weights when training starts.

Two short examples, each alone, whole logits, the model's own attention: that is the truth. The
fastest way that says the same is taken. A model whose head scales its logits, or whose layers look
over the border between two packed examples, is found out here and not in the loss.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from finetune_data.read.examples import COMPLETION
from finetune_trainer.batching.microbatch import Example, MicroBatch, arrange
from finetune_trainer.engine import attention
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.objective import ComputePath

Losses = npt.NDArray[np.float64]
COMPUTE_PATHS = (
    ComputePath(True, True),
    ComputePath(True, False),
    ComputePath(False, True),
    ComputePath(False, False),
)
LENGTHS = (10, 7, 5)
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}  # of the mean difference of a token's nll


def choose_compute_path(
    engine: Engine, *, longest: int, warn: Callable[[str], None], packing: bool = True
) -> ComputePath:
    """Sets it on the engine's objective. All ranks together. longest: example, in tokens."""
    objective = engine.objective
    attention.register()
    examples = list(_examples(int(objective.config.vocab_size)))
    alone = [_nll(engine, arrange([e], packed=False, prompts=False)) for e in examples]
    truth = np.concatenate(alone)
    can_pack = packing and attention.is_plain(objective.config, longest)
    doubts: dict[str, str] = {}
    for way in COMPUTE_PATHS:
        if way == ComputePath() or (way.is_packed and not can_pack):
            continue
        doubt = _doubt(engine, way, examples, truth)
        if not engine.any(doubt is not None):
            break
        objective.choose(ComputePath())
        doubts["packed" if way.is_chunked and way.is_packed else "chunked"] = doubt or "elsewhere"
    else:
        way = ComputePath()
    if not way.is_packed and packing:
        why = doubts.get("packed", "a layer of it looks at less than all earlier tokens")
        warn(f"the examples of this model are padded, not packed, which is slower: {why}")
    if not way.is_chunked:
        warn(f"the logits of this model are held whole, which takes memory: {doubts['chunked']}")
    return way


def _doubt(
    engine: Engine,
    way: ComputePath,
    examples: list[Example],
    truth: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> str | None:
    """Why the way is wrong for this model; None: it is right."""
    try:
        engine.objective.choose(way)
        found = _nll(engine, arrange(examples, packed=way.is_packed, prompts=False))
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    difference = float(np.abs(found - truth).mean())
    if difference < TOLERANCE[engine.precision]:
        return None
    return f"its losses differ by {difference:.3g}"


def _examples(vocabulary: int) -> Iterator[Example]:
    for number, length in enumerate(LENGTHS):
        tokens = (np.arange(length) * 7919 + number * 104729 + 17) % vocabulary
        yield tokens, np.full(length, COMPLETION, np.uint8)


def _nll(engine: Engine, batch: MicroBatch) -> Losses:
    import torch

    engine.model.eval()
    with torch.no_grad():
        found = engine.predict(batch, 0.0)[1]
    engine.model.train()
    nll: Losses = found.double().cpu().numpy()
    return nll
