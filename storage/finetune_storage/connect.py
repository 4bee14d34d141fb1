"""Opens the object storage that the environment names."""

import os
from pathlib import Path

from finetune_api.names import ENV_LOCAL_ROOT
from finetune_storage.client import s3_client
from finetune_storage.endpoints import process_policy
from finetune_storage.local import LocalStorage
from finetune_storage.network import prepare_network
from finetune_storage.s3 import Storage


def open_storage() -> Storage:
    """S3 as the AWS_* variables say; with FINETUNE_LOCAL_ROOT, a folder of this machine as well.

    Raises StorageError (InvalidSpec) for a wrong setting.
    """
    prepare_network()
    if root := os.environ.get(ENV_LOCAL_ROOT):
        return LocalStorage(Path(root))
    return Storage(s3_client(), proves_store=process_policy() is not None)
