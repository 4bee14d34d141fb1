"""Tokens per second in a list of bounded length."""

import pytest

from finetune_trainer.reporting.throughput import ThroughputLog


def test_throughput_is_tokens_over_seconds_between_two_steps() -> None:
    log = ThroughputLog(10.0, 500)
    log.add(6, 12.0, 700)
    log.add(7, 12.5, 750)
    assert [(p.step, p.tokens_per_second) for p in log.points()] == [(6, 100.0), (7, 100.0)]


@pytest.mark.parametrize("steps", [0, 1, 15, 16, 17, 1000, 9999])
def test_a_long_run_has_few_points_and_loses_no_time(steps: int) -> None:
    log = ThroughputLog(0.0, 0, points=16)
    for step in range(1, steps + 1):
        log.add(step, step * 0.5, step * 30)
    points = log.points()
    assert len(points) <= 16
    assert all(point.tokens_per_second == 60.0 for point in points)
    assert [point.step for point in points] == sorted({point.step for point in points})
    assert not steps or points[-1].step > steps - steps // 4 - 1


def test_a_stopped_clock_gives_no_throughput() -> None:
    log = ThroughputLog(1.0, 0)
    log.add(1, 1.0, 10)
    assert log.points() == []
