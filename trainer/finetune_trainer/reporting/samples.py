"""Before and after: greedy completions of a few prompts, the same prompts both times.

`complete` is given a way to generate; `generate` is one, over the engine. Up to ZeRO 2 every rank
has whole weights: the first one generates alone, with transformers' own cache. In ZeRO 3 all ranks
make whole forward passes together. A completion ends with the token that the expected one ends
with: the prepare Job put the end-of-sequence or end-of-turn token there.
"""

from collections.abc import Callable, Sequence
from inspect import signature
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from finetune_data.read.examples import COMPLETION
from finetune_data.tokenize.dataset import TokenSplit
from finetune_trainer.engine.lora import is_adapted
from finetune_trainer.reporting.data import Sample

if TYPE_CHECKING:
    from torch.nn import Module

    from finetune_trainer.engine.deepspeed import Engine

COUNT = 6  # samples
PROMPT_TOKENS = 1024  # longer prompts are not chosen
COMPLETION_TOKENS = 64  # generated at most

Tokens = list[int]
Generate = Callable[[Sequence["Prompt"]], list[Tokens]]
Next = Callable[[Sequence[Tokens]], Tokens]  # the likeliest token behind each row
Decode = Callable[[Sequence[int]], str]


class Prompt(NamedTuple):
    """What the model is given, what it should say, and the token that ends it."""

    tokens: Tokens
    expected: Tokens

    @property
    def end(self) -> int:
        return self.expected[-1]


def choose(split: TokenSplit, count: int = COUNT, longest: int = PROMPT_TOKENS) -> list[Prompt]:
    """Spread evenly over the file; of a chat the last answer. The same on every rank and attempt.

    Fewer where the file has fewer, or where prompts are longer than `longest` tokens.
    """
    found: list[Prompt] = []
    taken = -1
    for turn in range(min(count, len(split))):
        start = max(taken + 1, turn * len(split) // count)
        end = max(start + 1, (turn + 1) * len(split) // count)
        for index in range(start, min(end, len(split))):
            prompt = _last_answer(split, index)
            if prompt is not None and len(prompt.tokens) <= longest:
                found.append(prompt)
                taken = index
                break
    return found


def _last_answer(split: TokenSplit, index: int) -> Prompt | None:
    """Cut before the last learned span; None where nothing stands before it or in it."""
    tokens, roles = split.example(index)
    learned = np.flatnonzero(roles == COMPLETION)
    if not len(learned):
        return None
    end = int(learned[-1]) + 1
    others = np.flatnonzero(roles[:end] != COMPLETION)
    start = int(others[-1]) + 1 if len(others) else 0
    return Prompt(tokens[:start].tolist(), tokens[start:end].tolist()) if start else None


def complete(prompts: Sequence[Prompt], generate: Generate, decode: Decode) -> list[str]:
    """The texts that come of the prompts, in their order."""
    return [decode(tokens) for tokens in generate(prompts)]


def make(
    prompts: Sequence[Prompt],
    decode: Decode,
    *,
    before: Sequence[str] | None,
    after: Sequence[str] | None,
) -> list[Sample]:
    """before, after: of `complete`, None where it was not called."""
    return [
        Sample(
            prompt=decode(prompt.tokens),
            expected=decode(prompt.expected),
            before=before[index] if before is not None else None,
            after=after[index] if after is not None else None,
        )
        for index, prompt in enumerate(prompts)
    ]


def greedy(
    prompts: Sequence[Prompt], likeliest: Next, longest: int = COMPLETION_TOKENS
) -> list[Tokens]:
    """The likeliest token each time, until the end token or `longest` tokens."""
    completions: list[Tokens] = [[] for _ in prompts]
    open_rows = list(range(len(prompts)))
    for _ in range(longest):
        if not open_rows:
            break
        rows = [prompts[row].tokens + completions[row] for row in open_rows]
        for row, token in zip(open_rows, likeliest(rows), strict=True):
            completions[row].append(token)
        open_rows = [row for row in open_rows if completions[row][-1] != prompts[row].end]
    return completions


def generate(engine: "Engine", is_alive: Callable[[], None]) -> Generate:
    """Greedy, with the model as it is now. All ranks together; the first gets the completions."""

    def run(prompts: Sequence[Prompt]) -> list[Tokens]:
        import torch

        if engine.zero_stage < 3:
            return _cached(engine, prompts) if engine.place.rank == 0 and prompts else []

        def likeliest(rows: Sequence[Tokens]) -> Tokens:
            is_alive()
            return _likeliest(engine, rows)

        was_training = engine.model.training
        engine.model.eval()
        try:
            with torch.no_grad():
                return greedy(prompts, likeliest)
        finally:
            engine.model.train(was_training)

    return run


def _cached(engine: "Engine", prompts: Sequence[Prompt]) -> list[Tokens]:
    """All prompts at once, padded on the left, a token a pass."""
    import torch

    from finetune_trainer.engine.objective import ComputePath

    width = max(len(prompt.tokens) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.tokens) :] = torch.tensor(prompt.tokens)
        mask[row, width - len(prompt.tokens) :] = 1
    model: Any = engine.model
    former, was_training = engine.way, model.training
    engine.objective.choose(
        ComputePath(is_chunked=former.is_chunked)
    )  # its own attention knows the mask
    model.eval()
    try:
        with torch.no_grad():
            found = model.generate(
                input_ids=ids.to(engine.device),
                attention_mask=mask.to(engine.device),
                max_new_tokens=COMPLETION_TOKENS,
                do_sample=False,
                num_beams=1,
                eos_token_id=sorted({prompt.end for prompt in prompts}),
                pad_token_id=prompts[0].end,
            )
    finally:
        model.train(was_training)
        engine.objective.choose(former)
    rows: list[Tokens] = found[:, width:].tolist()
    return [_until(row, prompt.end) for row, prompt in zip(rows, prompts, strict=True)]


def _until(tokens: Tokens, end: int) -> Tokens:
    """With its own end token, without what stands behind it."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def _likeliest(engine: "Engine", rows: Sequence[Tokens]) -> Tokens:
    """One forward pass over all rows, behind each other or padded, as the engine's way has it."""
    import torch

    lengths = [len(row) for row in rows]
    settings: dict[str, Any] = {}
    if engine.way.is_packed:
        bounds = (0, *accumulate(lengths))
        inputs = torch.tensor([[token for row in rows for token in row]], device=engine.device)
        positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
        starts = torch.tensor(bounds, dtype=torch.int32, device=engine.device)
        settings = {"bounds": bounds, "starts": starts}
        places = [(0, bound - 1) for bound in bounds[1:]]
    else:
        width = max(lengths)  # padding stands on the right, where causal attention never looks
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
    found = torch.stack([output.logits[row, kept.index(place)].argmax() for row, place in places])
    if engine.place.ranks > 1:  # ties may be broken otherwise on another GPU
        torch.distributed.broadcast(found, 0)
    tokens: Tokens = found.tolist()
    return tokens


def _causal(model: "Module") -> Any:
    """The model of transformers, also where an adapter is around it."""
    return model.get_base_model() if is_adapted(model) else model
