"""Argo CD's health script, run by Lua on the status that the operator writes in each state."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from finetune_api import names
from finetune_api.finetune import FineTune
from tests.chart.conftest import CHART, ROOT
from tests.support.objects import World, a_finetune, failed, trained

SCRIPT = (CHART / "files/argocd-health.lua").read_text()
Health = dict[str, str]


@pytest.fixture(scope="module")
def health() -> Callable[[Any], Health]:
    """Run the script as Argo CD does, with the object in a global `obj`."""
    lupa = pytest.importorskip("lupa")

    def ask(thing: Any) -> Health:
        lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        lua.globals()["obj"] = lua.table_from(thing, recursive=True)
        return dict(lua.execute(SCRIPT))

    return ask


def as_stored(finetune: FineTune) -> dict[str, Any]:
    return finetune.to_dict()


def suspended() -> World:
    world = World(a_finetune(suspend=True))
    world.until_training()
    return world


def succeeded() -> World:
    world = World().until_running()
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    return world


def broken() -> World:
    world = World(a_finetune())
    world.settle()
    world.end_pod("prepare", 0, names.EXIT_USER, failed("InvalidData", "line 17 is wrong"))
    world.settle()
    return world


def cancelled() -> World:
    world = World(a_finetune(cancel=True))
    world.settle()
    return world


def restarting() -> World:
    world = World().until_running()
    world.end_pod("a1", 0, 1, failed("RankCrashed"))
    world.step()
    return world


@pytest.mark.parametrize(
    ("world", "state", "wanted"),
    [
        (lambda: World().until_training(), "pending", "Progressing"),
        (lambda: World().until_running(), "running", "Progressing"),
        (restarting, "pending", "Progressing"),
        (suspended, "pending", "Suspended"),
        (succeeded, "succeeded", "Healthy"),
        (broken, "failed", "Degraded"),
        (cancelled, "cancelled", "Suspended"),
    ],
)
def test_health_is_what_a_sync_wave_needs(
    health: Callable[[Any], Health], world: Callable[[], World], state: str, wanted: str
) -> None:
    finetune = world().finetune
    assert finetune.status.state == state
    found = health(as_stored(finetune))
    assert found["status"] == wanted
    assert found["message"] == finetune.status.message


@pytest.mark.parametrize("status", [None, {}, {"conditions": []}])
def test_before_the_operator_has_looked_it_is_progressing(
    health: Callable[[Any], Health], status: Any
) -> None:
    thing = {"kind": "FineTune"} | ({} if status is None else {"status": status})
    assert health(thing)["status"] == "Progressing"


def test_a_state_of_a_later_version_is_unknown(health: Callable[[Any], Health]) -> None:
    assert health({"status": {"state": "hibernating"}})["status"] == "Unknown"


def test_every_state_has_its_word() -> None:
    states = [value for key, value in vars(names.State).items() if key.isupper()]
    assert len(states) == 5
    assert all(f"{state} = " in SCRIPT for state in states)


def test_the_example_s_script_is_the_chart_s() -> None:
    config = yaml.safe_load((ROOT / "examples/gitops/argocd/health.yaml").read_text())
    (text,) = config["data"].values()
    assert SCRIPT.endswith(text)
    assert text.startswith("-- A cancelled")
