"""The objects of the cluster on one machine: files that survive, versions, and waiting."""

import asyncio
import json
from pathlib import Path

import pytest

from finetune_local.objects import Objects, version_of


def body(name: str) -> dict[str, object]:
    return {"metadata": {"name": name}, "spec": {"model": "ada"}}


async def test_objects_are_there_after_a_restart(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    made = objects.add("finetunes", body("a"))
    assert made["metadata"]["uid"]
    assert made["metadata"]["generation"] == 1
    changed = objects.put("finetunes", {**made, "status": {"state": "running"}})
    assert version_of(changed) > version_of(made)
    again = Objects(tmp_path)
    assert again.get("finetunes", "a") == changed
    later = again.put("finetunes", changed)
    assert version_of(later) > version_of(changed)
    again.remove("finetunes", "a")
    assert list(Objects(tmp_path).list("finetunes")) == []


async def test_a_name_is_used_once_for_each_kind(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.add("finetunes", body("a"))
    with pytest.raises(ValueError, match="a"):
        objects.add("finetunes", body("a"))
    assert objects.add("models", body("a"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"metadata": {"name": "other"}, "spec": {}}',
        '{"metadata": {"name": "a"}}',
        '{"metadata": {"name": "a", "resourceVersion": "x"}, "spec": {}}',
        "\x00\xff",
    ],
)
async def test_a_file_that_is_no_object_is_kept_and_ignored(tmp_path: Path, text: str) -> None:
    objects = Objects(tmp_path)
    objects.add("models", body("b"))
    path = tmp_path / "models" / "a.json"
    path.write_text(text, encoding="latin-1")
    found = Objects(tmp_path)
    assert [item["metadata"]["name"] for item in found.list("models")] == ["b"]
    assert path.exists()


async def test_a_change_wakes_everyone_who_waits(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    waiting = [asyncio.create_task(objects.change()) for _ in range(3)]
    await asyncio.sleep(0)
    objects.add("jobs", body("a"))
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_a_write_that_breaks_off_leaves_the_former_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects(tmp_path)
    made = objects.add("finetunes", body("a"))

    def broken(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dumps", broken)
    with pytest.raises(OSError, match="No space"):
        objects.put("finetunes", {**made, "status": {}})
    monkeypatch.undo()
    assert objects.get("finetunes", "a") == made
    assert Objects(tmp_path).get("finetunes", "a") == made
