"""The pod of a download: its volume, its restarts, its log, and its exit."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune_api.names import (
    ENV_LOCAL_ROOT,
    ENV_TASK,
    EXIT_CRASH,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    EXIT_USER,
    Reason,
)
from finetune_api.outcome import Failure, Outcome
from finetune_api.tasks import FetchTask
from finetune_api.uris import S3Uri
from finetune_data.termination import exit_code
from finetune_serving import fetch
from finetune_serving.fetch import POD, DownloadLog, fetch_model
from finetune_serving.models import failures
from tests.data.stub_server import StubServer, s3_error
from tests.serving.published_model import (
    FILES,
    RESTORE,
    SERVED,
    SHARDS,
    SIZE,
    SPACE,
    ObservedStorage,
    Published,
    content,
    manifest_of,
)

# --- the volume -----------------------------------------------------------------------------------


def test_a_volume_that_is_too_small_is_refused_before_the_download(
    model: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is there already needs no space."""
    (model.folder / SHARDS[0]).write_bytes(FILES[SHARDS[0]])
    needed = sum(map(len, SERVED.values())) - SIZE
    usage = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    failure = model.failure()
    assert failure.message == model.sentence(
        "the model at {uri} needs 0.0 GB, but the volume at {folder} has only 0.0 GB free: " + SPACE
    )
    assert (failure.code, exit_code(failure)) == (Reason.INTERNAL, EXIT_CRASH)
    assert content(model.folder).keys() == {SHARDS[0]}
    usage.free = needed
    fetch_model(model.task, model.storage)
    assert content(model.folder).keys() == {*SERVED, "manifest.json"}


def test_the_sentence_about_space_has_gigabytes() -> None:
    failure = failures.no_space(
        S3Uri("acme", "m"), Path("/model"), needed=140 * 10**9, free=20_460 * 10**6
    )
    assert failure.message == (
        "the model at s3://acme/m needs 140.0 GB, but the volume at /model has only 20.5 GB free: "
        + SPACE
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_volume_that_becomes_full_is_named(
    local: Published, observed: ObservedStorage, number: int
) -> None:
    def full(name: str) -> None:
        raise OSError(number, "no space")

    observed.before = full
    failure = local.failure()
    assert failure.message == local.sentence(f"the volume at {{folder}} is full: {SPACE}")
    assert exit_code(failure) == EXIT_CRASH


# --- the container starts again -------------------------------------------------------------------


def test_a_download_that_was_interrupted_continues(
    local: Published, observed: ObservedStorage
) -> None:
    """Complete files are kept. Partial, changed, and foreign ones are replaced or deleted."""

    def killed(name: str) -> None:
        if name == SHARDS[1]:
            raise KeyboardInterrupt

    observed.before = killed
    with pytest.raises(KeyboardInterrupt):
        fetch_model(local.task, observed)
    here = local.folder
    assert not {"config.json", "manifest.json"} & content(here).keys()
    (here / SHARDS[0]).unlink(missing_ok=True)
    (here / SHARDS[0]).write_bytes(FILES[SHARDS[0]])
    kept = (here / SHARDS[0]).stat().st_ino
    (here / SHARDS[1]).write_bytes(bytes(len(FILES[SHARDS[1]])))
    (here / f"{SHARDS[1]}.part").write_bytes(b"part")
    (here / "model-00003-of-00003.safetensors").write_bytes(b"of another model")
    (here / "adapter").mkdir()
    (here / "adapter" / "adapter_model.safetensors").write_bytes(b"x")
    observed.before, observed.downloaded = lambda name: None, []
    fetch_model(local.task, observed)
    assert content(here) == {**SERVED, "manifest.json": manifest_of(FILES)}
    assert (here / SHARDS[0]).stat().st_ino == kept
    assert SHARDS[1] in observed.downloaded and SHARDS[0] not in observed.downloaded
    assert not (here / "adapter").exists()


def test_a_complete_model_is_not_downloaded_again(
    local: Published, observed: ObservedStorage
) -> None:
    fetch_model(local.task, observed)
    observed.downloaded = []
    fetch_model(local.task, observed)
    assert observed.downloaded == ["config.json"]
    assert content(local.folder) == {**SERVED, "manifest.json": manifest_of(FILES)}


def test_links_are_not_followed_and_a_folder_in_the_place_of_a_file_is_replaced(
    local: Published, observed: ObservedStorage, tmp_path: Path
) -> None:
    other, here = tmp_path / "other", local.folder
    other.mkdir()
    (other / "kept").write_bytes(b"kept")
    (here / "link").symlink_to(other)
    (here / "dangling").symlink_to(tmp_path / "nowhere")
    (here / SHARDS[1]).mkdir()
    (here / SHARDS[1] / "x").write_bytes(b"x")
    fetch_model(local.task, observed)
    assert content(here) == {**SERVED, "manifest.json": manifest_of(FILES)}
    assert not any(path.is_symlink() for path in here.rglob("*"))
    assert content(other) == {"kept": b"kept"}


# --- the log --------------------------------------------------------------------------------------


def test_a_line_every_ten_seconds_has_the_share_and_the_gigabytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 100.0
    progress = DownloadLog(lambda: now)
    for now, done in (  # noqa: B007 - the clock reads it
        (109.9, 1 * 10**9),
        (110.0, 23_400 * 10**6),
        (119.9, 30 * 10**9),
        (125.0, 139_999_999_999),
        (134.9, 140 * 10**9),
        (135.0, 140 * 10**9),
    ):
        progress(done, 140 * 10**9)
    assert capsys.readouterr().out.splitlines() == [
        "downloading: 16 %, 23.4 of 140.0 GB",
        "downloading: 99 %, 140.0 of 140.0 GB",
        "downloading: 100 %, 140.0 of 140.0 GB",
    ]


@pytest.mark.parametrize(
    ("downloaded", "kept", "seconds", "line"),
    [
        (140 * 10**9, 0, 312.5, "downloaded and verified 140.0 GB in 312 s (448 MB/s)"),
        (
            10**9,
            139 * 10**9,
            0.5,
            "downloaded and verified 1.0 GB in 0 s (2,000 MB/s); 139.0 GB were already complete",
        ),
        (10**9, 0, 0.0, "downloaded and verified 1.0 GB in 0 s"),
    ],
    ids=["all", "a part", "at once"],
)
def test_the_last_line_has_the_size_the_seconds_and_the_rate(
    downloaded: int, kept: int, seconds: float, line: str
) -> None:
    assert fetch._summary(downloaded, kept, seconds) == line


# --- the pod --------------------------------------------------------------------------------------


def pod_failure(task: FetchTask) -> Failure:
    failure = POD.run(task.to_json()).failure
    assert failure is not None
    return failure


def test_failures_of_storage_keep_their_codes(
    aws: pytest.MonkeyPatch, model: Published, stub: StubServer
) -> None:
    missing = pod_failure(model.task.replace(uri="s3://no-such-bucket/model"))
    assert (missing.code, exit_code(missing)) == (Reason.BUCKET_NOT_FOUND, EXIT_USER)
    aws.setenv("AWS_ENDPOINT_URL", stub.url)
    stub.answer = lambda _: s3_error("AccessDenied", 403)
    denied = pod_failure(model.task)
    assert (denied.code, exit_code(denied)) == (Reason.S3_ACCESS_DENIED, EXIT_USER)
    aws.setenv("AWS_MAX_ATTEMPTS", "1")
    stub.answer = lambda _: s3_error("ServiceUnavailable", 503)
    busy = pod_failure(model.task)
    assert (busy.code, exit_code(busy)) == (Reason.S3_UNAVAILABLE, EXIT_UNAVAILABLE)


def test_a_wrong_address_and_a_wrong_task_are_sentences(
    aws: pytest.MonkeyPatch, model: Published
) -> None:
    wrong = pod_failure(model.task.replace(uri="s3://acme/../x"))
    assert (wrong.code, wrong.param, exit_code(wrong)) == (Reason.INVALID_SPEC, "uri", EXIT_USER)
    assert wrong.message == "uri: 's3://acme/../x' has an empty, '.' or '..' part in its key"
    unknown = POD.run("{}").failure
    assert unknown is not None and exit_code(unknown) == EXIT_CRASH


def test_a_success_has_no_message(aws: pytest.MonkeyPatch, model: Published) -> None:
    assert POD.run(model.task.to_json()) == Outcome()


@pytest.mark.slow
def test_the_process_of_a_pod_downloads_a_model_or_fails_with_a_message(
    local: Published, tmp_path: Path
) -> None:
    log, temporary = tmp_path / "termination-log", tmp_path / "tmp"
    temporary.mkdir()
    own = {ENV_LOCAL_ROOT: str(tmp_path / "store"), "TMPDIR": str(temporary)}

    def run(task: FetchTask) -> tuple[int, list[str]]:
        ran = subprocess.run(
            [sys.executable, "-m", "finetune_serving.fetch", "--termination-log", str(log)],
            env=dict(os.environ) | own | {ENV_TASK: task.to_json()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return ran.returncode, ran.stdout.splitlines()

    code, lines = run(local.task)
    assert code == EXIT_OK, lines
    assert lines[0] == "downloading s3://finetune-local/model: 5 files, 0.0 GB"
    assert lines[1].startswith("downloaded and verified 0.0 GB in ")
    assert lines[2:] == ["the model is complete"]
    assert not log.exists()
    assert content(local.folder) == {**SERVED, "manifest.json": manifest_of(FILES)}
    local.storage.delete(local.uri.child(SHARDS[0]))
    sentence = f"the model at {local.uri} is damaged: {SHARDS[0]} is missing; {RESTORE}"
    code, lines = run(local.task)
    assert (code, lines) == (EXIT_USER, [f"failed: {sentence}"])
    outcome = Outcome.parse(log.read_text())
    assert outcome == Outcome(failure=Failure(code=Reason.MODEL_CHANGED, message=sentence))
    assert content(temporary) == {}
