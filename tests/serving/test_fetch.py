"""The download of a served model: complete and verified, or one sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from finetune_api.errors import FailureError
from finetune_api.names import EXIT_USER, LOCAL_BUCKET, Reason
from finetune_api.outcome import Failure
from finetune_api.uris import S3Uri
from finetune_data.termination import exit_code
from finetune_serving.fetch import fetch_model
from finetune_storage.s3 import Storage
from tests.serving.published_model import (
    CHECK,
    FILES,
    RESTORE,
    SERVED,
    SHARDS,
    SIZE,
    Files,
    ObservedStorage,
    Published,
    content,
    manifest_of,
    publish,
)

# --- success --------------------------------------------------------------------------------------


def test_the_folder_has_the_files_and_the_manifest_without_the_adapter(model: Published) -> None:
    fetch_model(model.task, model.storage)
    assert content(model.folder) == {**SERVED, "manifest.json": manifest_of(FILES)}


def test_a_model_without_a_digest_is_the_one_that_its_manifest_lists(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    """The whole bucket is the model, and the folder does not exist yet."""
    model = publish(storage, S3Uri(bucket, ""), tmp_path / "a" / "b")
    fetch_model(model.task.replace(manifest_sha256=None), storage)
    assert content(tmp_path / "a" / "b") == {**SERVED, "manifest.json": manifest_of(FILES)}


def names_in(folder: Path) -> set[str]:
    """The files now. Other ones arrive at the same time, so none is read."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_config_appears_after_the_weights_and_the_manifest_at_the_end(
    local: Published, observed: ObservedStorage
) -> None:
    seen: dict[str, set[str]] = {}
    observed.before = lambda name: seen.update({name: names_in(local.folder)})
    fetch_model(local.task, observed)
    assert observed.downloaded[-1] == "config.json"
    assert seen["config.json"] == SERVED.keys() - {"config.json"}
    assert all("manifest.json" not in names for names in seen.values())


# --- failures -------------------------------------------------------------------------------------


class Case(NamedTuple):
    """change: of the published model. message: with the fields of Published.sentence."""

    name: str
    change: Callable[[Published], object]
    code: str
    exit: int
    message: str


def replaced(path: str, data: bytes) -> Callable[[Published], object]:
    return lambda model: model.write(path, data)


def deleted(path: str) -> Callable[[Published], object]:
    return lambda model: model.storage.delete(model.uri.child(path))


CASES = [
    Case(
        "no manifest",
        deleted("manifest.json"),
        Reason.DATA_NOT_FOUND,
        EXIT_USER,
        "there is no model at {uri} (endpoint {endpoint}): its files were deleted, or the address "
        "is wrong; restore the files, correct the address, or train the model again",
    ),
    Case(
        "another manifest",
        replaced("manifest.json", manifest_of({"config.json": b"{}"})),
        Reason.MODEL_CHANGED,
        EXIT_USER,
        f"the manifest of the model at {{uri}} differs from the published one: {RESTORE}",
    ),
    Case(
        "a missing file",
        deleted(SHARDS[0]),
        Reason.MODEL_CHANGED,
        EXIT_USER,
        f"the model at {{uri}} is damaged: {SHARDS[0]} is missing; {RESTORE}",
    ),
    Case(
        "a shorter file",
        replaced(SHARDS[0], FILES[SHARDS[0]][:7]),
        Reason.MODEL_CHANGED,
        EXIT_USER,
        f"the model at {{uri}} is damaged: {SHARDS[0]} has 7 bytes instead of {SIZE:,}; {RESTORE}",
    ),
    Case(
        "other bytes",
        replaced(SHARDS[0], bytes(SIZE)),
        Reason.MODEL_CHANGED,
        EXIT_USER,
        f"the model at {{uri}} is damaged: {SHARDS[0]} has a SHA-256 that differs from its "
        f"manifest; {RESTORE}",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_files_that_changed_in_s3_are_one_sentence(model: Published, case: Case) -> None:
    case.change(model)
    failure = model.failure()
    assert failure.message == model.sentence(case.message)
    assert (failure.code, exit_code(failure)) == (case.code, case.exit)
    assert not {"config.json", "manifest.json"} & content(model.folder).keys()


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (SERVED | {"config.json": b"{}"}, "config.json names no model_type"),
        (SERVED | {"config.json": b"{"}, "config.json is not JSON"),
        (
            SERVED | {SHARDS[1]: FILES[SHARDS[1]][:-1]},
            f"{SHARDS[1]} has 8,079 bytes, but its header says 8,080",
        ),
        (
            {path: data for path, data in SERVED.items() if path != SHARDS[1]},
            f"{SHARDS[1]} is missing, which model.safetensors.index.json lists",
        ),
    ],
    ids=["no type", "broken config", "cut off", "incomplete"],
)
def test_intact_files_of_no_model_are_one_sentence(
    observed: ObservedStorage, folder: Path, files: Files, problem: str
) -> None:
    model = publish(observed, S3Uri(LOCAL_BUCKET, "model"), folder, files)
    failure = model.failure()
    start = f"{model.uri} contains no model that a server can load, because {problem}"
    assert failure.message.startswith(start)
    assert failure.message.endswith(f": {CHECK}")
    assert (failure.code, exit_code(failure)) == (Reason.INVALID_DATA, EXIT_USER)
    assert not (folder / "manifest.json").exists()


@pytest.mark.parametrize(
    "data",
    [b"[]", b'{"files": 1}', b"\xff", manifest_of(FILES) + b" " * 2**24],
    ids=["a list", "no files", "binary", "large"],
)
def test_a_manifest_of_another_tool_is_one_sentence(
    observed: ObservedStorage, local: Published, data: bytes
) -> None:
    local.write("manifest.json", data)
    with pytest.raises(FailureError) as caught:
        fetch_model(local.task.replace(manifest_sha256=None), observed)
    assert caught.value.failure == Failure(
        code=Reason.INVALID_DATA,
        message=f"{local.uri} contains no published model, because manifest.json has an unknown "
        f"format: {CHECK}",
    )


HOSTILE: dict[str, tuple[str, int, str]] = {
    "a parent": ("../x", 1, "the invalid path '../x'"),
    "the root": ("/etc/x", 1, "the invalid path '/etc/x'"),
    "a hidden parent": ("a/../../x", 1, "the invalid path 'a/../../x'"),
    "a parent below the adapter": ("adapter/../../x", 1, "the invalid path 'adapter/../../x'"),
    "an empty part": ("a//b", 1, "the invalid path 'a//b'"),
    "no path": ("", 1, "the invalid path ''"),
    "the folder": (".", 1, "the invalid path '.'"),
    "a backslash": ("a\\b", 1, r"the invalid path 'a\\b'"),
    "a line break": ("a\nb", 1, r"the invalid path 'a\nb'"),
    "a repeated path": ("config.json", 1, "config.json twice"),
    "a file below a file": ("config.json/x", 1, "config.json/x below another file"),
    "a negative size": ("x", -1, "an invalid size of x"),
    "a large size": ("x", 10**15 + 1, "an invalid size of x"),
    "an absurd size": ("x", 10**400, "an invalid size of x"),
}


@pytest.mark.parametrize(("path", "size", "what"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_writes_nothing(
    observed: ObservedStorage, folder: Path, tmp_path: Path, path: str, size: int, what: str
) -> None:
    more = {"path": path, "size": size, "sha256": "0" * 64}
    model = publish(observed, S3Uri(LOCAL_BUCKET, "model"), folder, FILES, more)
    before = content(tmp_path)
    failure = model.failure()
    assert failure == Failure(
        code=Reason.INVALID_DATA,
        message=f"{model.uri} contains no published model, because manifest.json lists {what}: "
        f"{CHECK}",
    )
    assert content(tmp_path) == before
    assert observed.downloaded == []


def test_a_size_that_only_the_manifest_has_downloads_nothing(
    observed: ObservedStorage, folder: Path
) -> None:
    more = {"path": "large", "size": 10**15, "sha256": "0" * 64}
    model = publish(observed, S3Uri(LOCAL_BUCKET, "model"), folder, FILES, more)
    model.write("large", b"123")
    assert model.failure().message == (
        f"the model at {model.uri} is damaged: large has 3 bytes instead of "
        f"1,000,000,000,000,000; {RESTORE}"
    )
    assert observed.downloaded == []


def test_a_manifest_without_a_config_is_no_model(observed: ObservedStorage, folder: Path) -> None:
    files = {path: data for path, data in FILES.items() if path != "config.json"}
    model = publish(observed, S3Uri(LOCAL_BUCKET, "model"), folder, files)
    assert model.failure() == Failure(
        code=Reason.INVALID_DATA,
        message=f"{model.uri} contains no published model, because config.json is missing: {CHECK}",
    )
    assert observed.downloaded == []
