"""The parts of checkpoints: the owner of each parameter, the copy, and the upload process."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_api.names import EXIT_CRASH, Reason
from finetune_api.uris import S3Uri
from finetune_storage.errors import StorageError
from finetune_storage.s3 import Storage
from finetune_trainer.checkpoint.snapshot import HostCopy, upload
from finetune_trainer.checkpoint.store import shard_name
from finetune_trainer.engine.fragments import share
from tests.trainer.support import BUCKET


def test_each_parameter_is_saved_by_one_rank_and_the_load_is_balanced() -> None:
    sizes = [100, 1, 50, 50, 1, 98]
    owners = share(sizes, 2)
    load = [sum(s for s, o in zip(sizes, owners, strict=True) if o == rank) for rank in (0, 1)]
    assert load == [150, 150]
    assert share(sizes, 1) == [0] * 6
    assert share([5], 3) == [0]


def test_the_name_of_a_shard_contains_its_rank_and_attempt() -> None:
    assert shard_name(3, 16, 2) == "rank-00003-of-00016-attempt-2.safetensors"


@pytest.mark.slow
def test_a_copy_is_a_safetensors_file_in_memory_that_a_separate_process_uploads(
    tmp_path: Path, storage: Storage
) -> None:
    import torch
    from safetensors.torch import load

    weights = torch.arange(6.0).view(2, 3)
    tensors = {"a@0#weights": weights, "é@7#exp_avg": torch.ones(5), "nothing": torch.zeros(0)}
    copy = HostCopy(tmp_path)
    for step in range(2):
        copy.take(tensors)
        weights += 1  # training continues
        uri = S3Uri(BUCKET, f"checkpoints/step-{step}/shard.safetensors")
        entry = upload(copy, uri)()
        data = storage.read_bytes(uri)
        assert (entry.path, entry.size) == ("shard.safetensors", len(data))
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        found = load(data)
        assert found["a@0#weights"].tolist() == [step + number for number in range(6)]
        assert found["é@7#exp_avg"].tolist() == [1] * 5
        assert found["nothing"].shape == (0,)
    assert not list(tmp_path.iterdir())


def test_an_upload_that_s3_rejects_raises_the_error_of_s3(tmp_path: Path, storage: Storage) -> None:
    import torch

    copy = HostCopy(tmp_path)
    copy.take({"a": torch.ones(2)})
    with pytest.raises(StorageError) as error:
        upload(copy, S3Uri("no-such-bucket", "x"))()
    assert error.value.failure.code == Reason.BUCKET_NOT_FOUND
    assert "no-such-bucket" in error.value.failure.message


@pytest.mark.slow
def test_an_upload_that_begins_while_the_rank_is_stopped_begins_again(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal to the rank's group ends a process that has no group of its own yet."""
    import torch

    begun: list[subprocess.Popen[str]] = []
    begin = subprocess.Popen

    def stopped_once(*args: Any, **options: Any) -> subprocess.Popen[str]:
        begun.append(begin(*args, **options))
        if len(begun) == 1:
            begun[0].terminate()
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", stopped_once)
    uri = S3Uri(BUCKET, "checkpoints/begun-twice.safetensors")
    copy = HostCopy(tmp_path)
    copy.take({"a": torch.ones(2)})
    entry = upload(copy, uri)()
    assert [process.returncode for process in begun] == [-signal.SIGTERM, 0]
    assert storage.head(uri).size == entry.size


def test_an_upload_ends_with_the_rank_that_started_it() -> None:
    reader, writer = os.pipe()
    command = [
        sys.executable,
        "-m",
        "finetune_trainer.checkpoint.shard_upload",
        str(reader),
        "s3://b/k",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[reader])
    assert process.stdin is not None
    process.stdin.close()  # otherwise it would read forever from the pipe
    assert process.wait(30) == EXIT_CRASH
    os.close(reader)
    os.close(writer)
