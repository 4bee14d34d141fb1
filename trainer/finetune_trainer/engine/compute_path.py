"""Chooses the fastest compute path that is exact for a model, by a test on its own weights.

The reference is two short examples, each alone, with whole logits and the model's own attention.
The trainer uses the fastest path with the same losses. This detects, before training starts, a
model whose head scales its logits, or whose layers attend across the border between two packed
examples.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from finetune_data.read.examples import COMPLETION
from finetune_trainer.batching.microbatch import Example, MicroBatch, arrange
from finetune_trainer.engine import attention, fused_norms
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.objective import ComputePath

Losses = npt.NDArray[np.float64]
COMPUTE_PATHS = (
    ComputePath(True, True, is_fused=True),
    ComputePath(True, True),
    ComputePath(True, False),
    ComputePath(False, True),
    ComputePath(False, False),
)
LENGTHS = (10, 7, 5)
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}  # mean absolute difference of the nll per token


def choose_compute_path(
    engine: Engine,
    *,
    longest: int,
    warn: Callable[[str], None],
    packing: bool = True,
    timed: Callable[[float], None] = lambda seconds: None,
) -> ComputePath:
    """Set the path on the engine's objective, and return it. All ranks call it together.

    longest: the number of tokens of the longest example. packing: whether to try packed paths.
    timed: called with the duration of each forward pass of the reference.
    """
    objective = engine.objective
    attention.register()
    examples = list(_examples(int(objective.config.vocab_size)))
    alone = []
    for example in examples:
        start = time.monotonic()
        alone.append(_nll(engine, arrange([example], packed=False, prompts=False)))
        timed(time.monotonic() - start)
    reference = np.concatenate(alone)
    can_fuse = fused_norms.is_available(engine.device)
    can_pack = packing and attention.is_plain(objective.config, longest)
    problems: dict[str, str] = {}
    for path in COMPUTE_PATHS:
        if path == ComputePath() or (path.is_packed and not can_pack):
            continue
        if path.is_fused and not can_fuse:
            continue
        problem = _problem(engine, path, examples, reference)
        if not engine.any(problem is not None):
            break
        objective.choose(ComputePath())
        kind = "packed" if path.is_chunked and path.is_packed else "chunked"
        problems[kind] = problem or "another rank reported a problem"
    else:
        path = ComputePath()
    if not path.is_packed and packing:
        reason = problems.get("packed", "a layer does not attend to all earlier tokens")
        warn(f"training is slower: examples of this model are padded, not packed ({reason})")
    if not path.is_chunked:
        reason = problems["chunked"]
        warn(f"training needs more memory: logits of this model are not chunked ({reason})")
    return path


def _problem(
    engine: Engine,
    path: ComputePath,
    examples: list[Example],
    reference: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> str | None:
    """Why the path is not usable for this model; None: it is usable."""
    try:
        engine.objective.choose(path)
        found = _nll(engine, arrange(examples, packed=path.is_packed, prompts=False))
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    difference = float(np.abs(found - reference).mean())
    if difference < TOLERANCE[engine.precision]:
        return None
    return f"the losses differ by {difference:.3g}"


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
