"""A local S3 server for the benchmark, and the objects that a training pod reads."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "bench"


@contextmanager
def s3(folder: Path) -> Iterator[None]:
    """Run a server; the AWS_* environment variables point to it. Objects are files in `folder`."""
    from devcluster import gotools

    gotools.build(["versitygw"])
    (folder / "objects" / BUCKET).mkdir(parents=True)
    key = secrets.token_hex(16)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    # In practice S3 is another machine, so it must not take CPU time from the measured process.
    server_of_low_priority = ["chrt", "--idle", "0", str(gotools.binary("versitygw"))]
    command = [*server_of_low_priority, "--port", f"127.0.0.1:{port}", "--quiet"]
    environment = {**os.environ, "ROOT_ACCESS_KEY": "bench", "ROOT_SECRET_KEY": key}
    with (folder / "s3.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "posix", str(folder / "objects")], env=environment, stdout=log, stderr=log
        )
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": key,
        "AWS_REGION": "us-east-1",
    }
    try:
        _wait(port)
        yield
    finally:
        server.terminate()
        server.wait()


def _wait(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("versitygw does not accept connections")


def put(source: Path, folder: Path, bucket: str = BUCKET) -> tuple[str, str, int]:
    """Upload the workload in `source`; return the model's URI, the dataset's, and the examples.

    folder: a new one, for the files of the dataset.
    """
    import shutil

    from bench.trainer import workload
    from finetune_api.uris import S3Uri
    from finetune_data.tokenize.dataset import (
        DatasetManifest,
        DatasetSource,
        SplitCounts,
        write_dataset,
    )
    from finetune_storage.connect import open_storage
    from finetune_storage.manifests import file_entry

    storage = open_storage()
    model, data = S3Uri(bucket, "model"), S3Uri(bucket, "dataset")
    for path in sorted((source / "model").iterdir()):
        storage.upload_file(path, model.child(path.name))
    folder.mkdir(parents=True)
    for part in ("tokens", "roles", "offsets"):
        shutil.copyfile(source / f"{part}.npy", folder / f"train.{part}.npy")
    split = workload.read(source)
    manifest = DatasetManifest(
        source=DatasetSource(tokenizer_sha256="0" * 64, context_length=1024, inputs={}),
        splits={"train": SplitCounts(examples=len(split), tokens=len(split.tokens))},
        files=[file_entry(folder, f"train.{part}.npy") for part in ("tokens", "roles", "offsets")],
    )
    write_dataset(folder, data, storage, manifest)
    return str(model), str(data), len(split)
