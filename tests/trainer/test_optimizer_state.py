"""The optimizer's state in every ZeRO stage and offload mode."""

import json
from typing import Any

import pytest

from tests.trainer import support

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("optimizer")
    support.run_ranks("tests.trainer.optimizer_state", 1, str(folder))
    values: dict[str, dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return values


def test_a_resume_reuses_the_memory_of_the_moments(found: dict[str, dict[str, Any]]) -> None:
    for mode, values in found.items():
        assert values["had moments"], mode
        assert values["same memory"], mode
        assert values["zero"], mode
        assert values["steps"] == [7.0], mode


def test_a_checkpoint_reads_the_state_where_it_is(found: dict[str, dict[str, Any]]) -> None:
    """An offloaded state does not pass through the memory of the GPU."""
    assert {mode: values["copied"] for mode, values in found.items()} == dict.fromkeys(found, 0)


def test_the_fused_optimizer_has_the_weights_of_the_plain_one(
    found: dict[str, dict[str, Any]],
) -> None:
    print({mode: values["distance"] for mode, values in found.items()})
    for mode, values in found.items():
        assert values["fused"], mode
        assert values["distance"] < 1e-6, mode
