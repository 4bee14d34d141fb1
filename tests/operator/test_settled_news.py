"""Which FineTunes reach kopf at a start with many that have ended."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.core.key import Key
from finetune_operator.handlers import watch_streams, watches
from finetune_operator.handlers.workqueue import WorkQueue
from finetune_operator.kube.store import Store
from finetune_operator.telemetry import reconcile_metrics
from tests.operator.test_store import a_finetune, a_job, ended
from tests.support.objects import a_settings

IsNews = Callable[[str, JsonObject, str | None], bool]


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Key, str | None]]:
    """The FineTunes of which only the state is counted."""
    found: list[tuple[Key, str | None]] = []
    monkeypatch.setattr(reconcile_metrics, "remember", lambda *known: found.append(known))
    return found


@pytest.fixture
def is_news(monkeypatch: pytest.MonkeyPatch) -> IsNews:
    installed: list[Any] = []
    monkeypatch.setattr(watch_streams, "install", lambda _, found: installed.append(found))
    watches.build_registry(WorkQueue(), Store(), a_settings())
    (found,) = installed
    is_news: IsNews = found
    return is_news


@pytest.mark.parametrize("state", sorted(names.TERMINAL_STATES))
def test_one_that_has_ended_is_counted_and_goes_no_further(
    is_news: IsNews, remembered: list[tuple[Key, str | None]], state: str
) -> None:
    raw = a_finetune(5, state)
    assert not is_news("finetunes", raw, None)
    assert remembered == [(Key.of(raw), state)]
    assert is_news("finetunes", raw, "DELETED")


def test_one_that_has_ended_and_still_has_a_job_is_news(
    is_news: IsNews, remembered: list[tuple[Key, str | None]]
) -> None:
    is_news("jobs", a_job(3), None)  # of a FineTune that is not known yet
    assert is_news("finetunes", a_finetune(5, "failed"), None)
    assert len(remembered) == 1
    assert not is_news("jobs", a_job(7, status=ended()), "MODIFIED")


@pytest.mark.parametrize("state", [None, "pending", "running"])
def test_one_that_has_not_ended_is_news(
    is_news: IsNews, remembered: list[tuple[Key, str | None]], state: str | None
) -> None:
    raw = a_finetune(5, state)
    raw["metadata"]["annotations"] = {names.ANNOTATION_MODEL: "of-a-user"}
    assert is_news("finetunes", raw, None)
    assert not is_news("finetunes", raw, "MODIFIED")  # the store has it
    assert remembered == []
