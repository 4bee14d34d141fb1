import pytest

from finetune_api.hyperparameters import LrSchedule
from finetune_trainer.engine.lr_schedule import learning_rate


def rates(schedule: LrSchedule, warmup_ratio: float = 0.2, steps: int = 10) -> list[float]:
    return [
        learning_rate(step, steps=steps, peak=1.0, warmup_ratio=warmup_ratio, schedule=schedule)
        for step in range(1, steps + 1)
    ]


def test_the_rate_rises_to_its_peak_during_warmup() -> None:
    assert rates("constant")[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_after_warmup_the_rate_falls_but_never_reaches_zero(schedule: LrSchedule) -> None:
    found = rates(schedule)
    assert found[2] == 1
    assert found[2:] == sorted(found[2:], reverse=True)
    assert all(rate > 0 for rate in found)


def test_linear_and_cosine_meet_half_way() -> None:
    assert rates("linear", 0)[5] == pytest.approx(0.5)
    assert rates("cosine", 0)[5] == pytest.approx(0.5)


def test_a_single_step_uses_the_peak_rate() -> None:
    assert rates("cosine", 0.03, steps=1) == [1]


def test_warmup_may_last_for_the_whole_run() -> None:
    assert rates("linear", 1.0) == pytest.approx([step / 11 for step in range(1, 11)])
