"""The sample completions take less than 1 % of the run, or a few seconds."""

from hypothesis import example, given
from hypothesis import strategies as st

from finetune_trainer.batching.order import Costs, spread
from finetune_trainer.reporting.samples.allowance import (
    PASSES_PER_MICRO_BATCH,
    SECONDS,
    SHARE,
    TIMES,
    UNLIMITED,
    Allowance,
    Meter,
    RunSize,
    allowance_of,
)
from finetune_trainer.reporting.samples.generation import MAX_COMPLETION_TOKENS


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def passes_taken(allowance: Allowance, pass_seconds: float) -> int:
    """The passes of one time, if each takes `pass_seconds`."""
    clock = Clock()
    meter = Meter(allowance, clock)
    passes = 0
    while passes < MAX_COMPLETION_TOKENS and meter.may_pass():
        clock.now += pass_seconds
        passes += 1
    assert meter.is_spent == (passes < MAX_COMPLETION_TOKENS)
    return passes


@given(
    micro_batches=st.integers(1, 10**6),
    tokens=st.floats(1, 16384),
    pass_tokens=st.integers(6, 6528),
    gather=st.floats(0, 60),
    second_per_token=st.floats(1e-7, 1e-3),
    known=st.booleans(),
)
@example(470, 2000, 2200, 42.0, 1e-6, True)  # 70B over TCP
@example(20, 2000, 2200, 42.0, 1e-6, True)
def test_completions_take_at_most_one_percent_or_a_few_seconds(
    micro_batches: int,
    tokens: float,
    pass_tokens: int,
    gather: float,
    second_per_token: float,
    known: bool,
) -> None:
    """gather: seconds for all weights, in every pass."""
    run = RunSize(micro_batches, tokens)
    pass_seconds = gather + second_per_token * pass_tokens
    micro_batch_seconds = gather + second_per_token * tokens
    allowance = allowance_of(run, pass_tokens, pass_seconds if known else 0.0)
    taken = TIMES * passes_taken(allowance, pass_seconds) * pass_seconds
    whole = PASSES_PER_MICRO_BATCH * micro_batches * micro_batch_seconds
    first = 0 if known else TIMES * pass_seconds  # an unknown duration costs one pass to measure
    assert taken <= max(SHARE * whole, TIMES * SECONDS, first) * (1 + 1e-9)


def test_a_long_run_has_whole_completions_however_slow_its_passes_are() -> None:
    assert passes_taken(allowance_of(RunSize(5000, 4000), 2000, 60.0), 60.0) == 64


def test_a_short_run_has_completions_if_passes_are_fast() -> None:
    run = RunSize(10, 4000)
    assert passes_taken(allowance_of(run, 2000, 0.01), 0.01) == 64
    assert passes_taken(allowance_of(run, 2000, 0.5), 0.5) == 10
    assert passes_taken(allowance_of(run, 2000, 6.0), 6.0) == 0


def test_short_micro_batches_allow_fewer_passes_over_long_prompts() -> None:
    assert allowance_of(RunSize(4000, 500), 2000, 1.0).passes == 15
    assert allowance_of(RunSize(4000, 2000), 2000, 1.0).passes == 60
    assert allowance_of(RunSize(4000, 9000), 2000, 1.0).passes == 60


def test_without_a_limit_all_passes_are_taken() -> None:
    assert passes_taken(UNLIMITED, 1e6) == 64


@given(
    lengths=st.lists(st.lists(st.integers(2, 64), min_size=1, max_size=40), min_size=1, max_size=6),
    ranks=st.integers(1, 5),
    slots=st.integers(64, 300),
)
def test_a_run_has_at_least_the_counted_micro_batches(
    lengths: list[list[int]], ranks: int, slots: int
) -> None:
    tokens = sum(map(sum, lengths))
    found = RunSize.of(steps=len(lengths), tokens=tokens, slots=slots, ranks=ranks)
    real = sum(len(spread(step, ranks, Costs(slots, 24))[0]) for step in lengths)
    assert len(lengths) <= found.micro_batches <= real
    assert found.tokens * found.micro_batches * ranks >= tokens - 1e-6
