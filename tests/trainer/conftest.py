"""An S3 server for the tests in this folder, with a base model in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.uris import S3Uri
from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage
from tests.trainer import support


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def storage(s3_server: str) -> Iterator[Storage]:
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", "us-east-1")
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=support.BUCKET)
        yield open_storage()


@pytest.fixture(scope="session")
def base_model(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama's folder; the same files are in S3, at the URI that `train_task` uses."""
    folder = tmp_path_factory.mktemp("base-model")
    support.put_base_model(storage, S3Uri.parse(f"s3://{support.BUCKET}/models/tiny"), folder)
    return folder
