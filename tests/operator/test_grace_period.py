"""The time that a training pod gets after SIGTERM, from the size of its part of a checkpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.build.train_job import grace_seconds
from finetune_operator.settings import Settings
from tests.support.objects import World, a_finetune, a_settings


def pod_grace(checkpoint_gib: float | None, settings: Settings | None = None) -> int:
    world = World(a_finetune(), settings).until_training(checkpoint_per_pod_gib=checkpoint_gib)
    pod = world.jobs[world.job("a1")]["spec"]["template"]["spec"]
    return int(pod["terminationGracePeriodSeconds"])


@pytest.mark.parametrize(
    ("gib", "seconds"), [(None, 60), (0.0, 60), (0.01, 60), (89.4, 443), (394.0, 1752), (400, 1777)]
)
def test_a_pod_gets_a_minute_and_the_time_of_its_checkpoint(
    gib: float | None, seconds: int
) -> None:
    assert pod_grace(gib) == seconds


def test_a_faster_store_shortens_it_and_half_an_hour_is_the_longest() -> None:
    assert pod_grace(89.4, a_settings(checkpointBandwidth=2000)) == 107
    assert pod_grace(89.4, a_settings(checkpointBandwidth=0.5)) == 1800
    assert pod_grace(5000.0) == 1800


@given(st.floats(0, 1e9), st.floats(0.001, 1e6))
def test_it_is_within_its_bounds_and_sufficient_below_the_longest(gib: float, rate: float) -> None:
    resolved = World().until_training().status.resolved.replace(checkpoint_per_pod_gib=gib)
    seconds = grace_seconds(resolved, a_settings(checkpointBandwidth=rate))
    assert 60 <= seconds <= 1800
    needed = 60 + gib * 2**30 / (rate * 1e6)
    assert seconds == 1800 or needed - 1 <= seconds <= needed
