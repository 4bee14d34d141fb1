"""A restored rank has the saved weights and moments, and its pod downloads only what it needs."""

import json
from typing import Any

import pytest

from finetune_storage.s3 import Storage
from finetune_trainer.checkpoint.store import shard_name
from tests.trainer import support
from tests.trainer.restoring import DAMAGES, RANKS, STAGES, STEPS

pytestmark = pytest.mark.slow

Measured = dict[int, list[dict[str, Any]]]  # by the number of ranks, for each of them


@pytest.fixture(scope="module")
def measured(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Two ranks save and restore first, and then three."""
    folder = tmp_path_factory.mktemp("restoring")
    for ranks in RANKS:
        support.run_ranks("tests.trainer.restoring", ranks, str(folder))
    return {
        ranks: [
            json.loads((folder / f"measured-{ranks}-{rank}.json").read_text())
            for rank in range(ranks)
        ]
        for ranks in RANKS
    }


def test_every_layout_restores_every_other_exactly(measured: Measured) -> None:
    checked = 0
    for found in measured.values():
        for values in found:
            for case, entry in values.items():
                if case != "damaged":
                    assert entry["equal"], case
                    assert abs(entry["output"]) < 1e-6, case
                    assert entry["is empty"], case
                    checked += 1
    assert checked == sum(8 * ranks * (index + 1) for index, ranks in enumerate(RANKS))


def test_a_pod_downloads_its_own_shard_if_the_layout_is_the_same(measured: Measured) -> None:
    for ranks in RANKS:
        for stage in STAGES:
            for rank, values in enumerate(measured[ranks]):
                entry = values[f"{ranks} {stage} -> {stage}"]
                assert entry["downloaded"] == [shard_name(rank, ranks, 1)]
                assert entry["ranges"] < 0.2 * entry["bytes"]  # the header of a tiny shard


def test_a_pod_downloads_the_shards_that_it_needs_if_the_layout_has_changed(
    measured: Measured,
) -> None:
    halves = {0: (0,), 1: (0, 1), 2: (1,)}  # that contain each third
    for stage in (1, 2, 3):  # they cut each parameter, or all of them together
        for rank, values in enumerate(measured[3]):
            needed = [shard_name(index, 2, 1) for index in halves[rank]]
            assert values[f"2 {stage} -> {stage}"]["downloaded"] == needed, (stage, rank)


def test_all_ranks_skip_a_damaged_checkpoint(measured: Measured) -> None:
    for values in measured[2]:
        assert values["damaged"] == {
            f"{kind} {origin}": STEPS for origin in (1, 3) for kind in DAMAGES
        }
