"""Greedy generation with the engine's model, for the samples of the report.

Up to ZeRO stage 2 every rank has the full weights: rank 0 generates alone, with the key-value cache
of transformers. In ZeRO stage 3 all ranks run full forward passes together. A completion ends where
the published model stops. Completions end early if they would take too long (`allowance`).
"""

from collections.abc import Callable, Collection, Sequence
from inspect import signature
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune_trainer.engine.lora import is_adapted
from finetune_trainer.reporting.samples.allowance import UNLIMITED, Allowance, Meter
from finetune_trainer.reporting.samples.prompts import Prompt, Tokens

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from finetune_trainer.engine.deepspeed import Engine

MAX_COMPLETION_TOKENS = 64


class Generated(NamedTuple):
    """The tokens of each completion; none on ranks that do not get them."""

    completions: list[Tokens]
    is_spent: bool = False  # whether the allowance ended before all completions did


Generate = Callable[[Sequence[Prompt]], Generated]
NextTokens = Callable[[Sequence[Tokens]], Tokens]  # the most likely next token of each row


def greedy(
    prompts: Sequence[Prompt],
    next_tokens: NextTokens,
    longest: int = MAX_COMPLETION_TOKENS,
    may_pass: Callable[[], bool] = lambda: True,
) -> list[Tokens]:
    """Append the most likely token to each row until its end token or `longest` tokens.

    may_pass: called before each pass; the rows stay as they are when it returns False.
    """
    completions: list[Tokens] = [[] for _ in prompts]
    open_rows = list(range(len(prompts)))
    for _ in range(longest):
        if not open_rows or not may_pass():
            break
        rows = [prompts[row].tokens + completions[row] for row in open_rows]
        for row, token in zip(open_rows, next_tokens(rows), strict=True):
            completions[row].append(token)
        open_rows = [
            row for row in open_rows if completions[row][-1] not in prompts[row].end_tokens
        ]
    return completions


def make_generator(
    engine: "Engine", heartbeat: Callable[[], None], allowance: Allowance = UNLIMITED
) -> Generate:
    """Return a greedy generator over the current weights.

    All ranks call it together; rank 0 gets the completions, and its clock counts.
    """

    def run(prompts: Sequence[Prompt]) -> Generated:
        import torch

        is_first = engine.coordinates.rank == 0
        meter = Meter(allowance)
        if engine.zero_stage < 3:
            is_needed = is_first and prompts
            found = _generate_with_cache(engine, prompts, meter) if is_needed else []
            return Generated(found, meter.is_spent)

        def may_pass() -> bool:
            return not engine.any(is_first and not meter.may_pass())

        def next_tokens(rows: Sequence[Tokens]) -> Tokens:
            heartbeat()
            return _next_tokens(engine, rows)

        was_training = engine.model.training
        engine.model.eval()
        try:
            with torch.no_grad():
                found = greedy(prompts, next_tokens, may_pass=may_pass)
                return Generated(found, meter.is_spent)
        finally:
            engine.model.train(was_training)

    return run


def _generate_with_cache(engine: "Engine", prompts: Sequence[Prompt], meter: Meter) -> list[Tokens]:
    """All prompts in one batch with padding on the left, one token in each pass."""
    import torch
    from transformers import StoppingCriteriaList

    from finetune_trainer.engine.objective import ComputePath

    if not meter.may_pass():
        return [[] for _ in prompts]

    def is_over(tokens: "Tensor", scores: Any, **_: Any) -> "Tensor":
        """Whether each row ends here, as transformers' stopping criteria return it."""
        return torch.full((len(tokens),), not meter.may_pass(), device=tokens.device)

    ends = sorted(frozenset().union(*(prompt.end_tokens for prompt in prompts)))
    width = max(len(prompt.tokens) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.tokens) :] = torch.tensor(prompt.tokens)
        mask[row, width - len(prompt.tokens) :] = 1
    model: Any = engine.model
    former, was_training = engine.compute_path, model.training
    # without packing, the model's own attention is used, which honors the mask
    engine.objective.choose(ComputePath(is_chunked=former.is_chunked))
    model.eval()
    try:
        with torch.no_grad():
            found = model.generate(
                input_ids=ids.to(engine.device),
                attention_mask=mask.to(engine.device),
                max_new_tokens=MAX_COMPLETION_TOKENS,
                do_sample=False,
                num_beams=1,
                eos_token_id=ends,
                pad_token_id=ends[0],
                stopping_criteria=StoppingCriteriaList([is_over]),
            )
    finally:
        model.train(was_training)
        engine.objective.choose(former)
    rows: list[Tokens] = found[:, width:].tolist()
    return [_cut_after(row, prompt.end_tokens) for row, prompt in zip(rows, prompts, strict=True)]


def _cut_after(tokens: Tokens, ends: Collection[int]) -> Tokens:
    """Drop everything after the first end token."""
    first = next((index for index, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: first + 1]


def _next_tokens(engine: "Engine", rows: Sequence[Tokens]) -> Tokens:
    import torch

    found = last_logits(engine, rows).argmax(-1)
    if engine.coordinates.ranks > 1:  # GPUs may break ties differently
        torch.distributed.broadcast(found, 0)
    tokens: Tokens = found.tolist()
    return tokens


def last_logits(engine: "Engine", rows: Sequence[Tokens]) -> "Tensor":
    """The logits of the token after each row, [rows, vocabulary]. All ranks together in ZeRO 3.

    One forward pass over all rows, packed or padded as the engine's compute path requires.
    """
    import torch

    lengths = [len(row) for row in rows]
    settings: dict[str, Any] = {}
    if engine.compute_path.is_packed:
        bounds = (0, *accumulate(lengths))
        inputs = torch.tensor([[token for row in rows for token in row]], device=engine.device)
        positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
        starts = torch.tensor(bounds, dtype=torch.int32, device=engine.device)
        settings = {"bounds": bounds, "starts": starts}
        places = [(0, bound - 1) for bound in bounds[1:]]
    else:
        width = max(lengths)  # padding is on the right, which causal attention ignores
        padded = [row + [0] * (width - len(row)) for row in rows]
        inputs = torch.tensor(padded, device=engine.device)
        positions = torch.arange(width).expand_as(inputs)
        places = [(row, length - 1) for row, length in enumerate(lengths)]
    kept = sorted({place for _, place in places})
    if "logits_to_keep" in signature(_causal(engine.model).forward).parameters:
        settings["logits_to_keep"] = torch.tensor(kept, device=engine.device)
    else:
        kept = list(range(inputs.shape[1]))
    positions = positions.to(engine.device)
    output = engine.model(input_ids=inputs, position_ids=positions, use_cache=False, **settings)
    return torch.stack([output.logits[row, kept.index(place)] for row, place in places])


def _causal(model: "Module") -> Any:
    """The transformers model inside a LoRA wrapper, or the model itself."""
    return model.get_base_model() if is_adapted(model) else model
