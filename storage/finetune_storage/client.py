"""The client of boto3, with the settings of the standard AWS_* environment variables.

Nothing hangs: 5 s to connect, 60 s for an answer, five attempts.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from finetune_storage import transfers
from finetune_storage.boto_errors import CLIENT_ERRORS
from finetune_storage.connections import shown_endpoint
from finetune_storage.endpoints import guard_client, limit_redirects, process_policy
from finetune_storage.errors import StorageError
from finetune_storage.messages import ProblemContext, StorageProblem
from finetune_storage.network import addressing_style

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS = 5
READ_SECONDS = 60
ATTEMPTS = 5  # AWS_MAX_ATTEMPTS overrides


def s3_client() -> S3Client:
    """A client for AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or AWS, with the AWS_* credentials.

    Buckets of an own endpoint are addressed by path, unless AWS_S3_ADDRESSING_STYLE, the chart, or
    the AWS configuration file says otherwise.

    Raises StorageError (InvalidSpec) for a wrong setting, such as an endpoint without `https://`.
    """
    import boto3
    from botocore.config import Config

    environment = os.environ
    style: Any = addressing_style(environment)
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    try:
        session = boto3.session.Session()  # a new one: the default session remembers credentials
        style = style or _configured_style(session, endpoint)
        attempts = int(environment.get("AWS_MAX_ATTEMPTS") or ATTEMPTS)
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=transfers.CONNECTIONS,
            # many S3-compatible stores refuse the default checksums of new SDKs
            request_checksum_calculation="when_required" if endpoint else None,
            response_checksum_validation="when_required" if endpoint else None,
            s3={"addressing_style": style},
        )
        policy = process_policy()
        if policy is not None and not environment.get("AWS_ENDPOINT_URL_STS"):
            # the store that a user chooses must not receive the token of the workload identity
            botocore_session = session._session
            botocore_session.set_config_variable("ignore_configured_endpoint_urls", True)
        client = session.client(
            "s3", endpoint_url=endpoint, region_name=region or "us-east-1", config=config
        )
    except (ValueError, *CLIENT_ERRORS) as error:
        context = ProblemContext("", code=type(error).__name__, detail=shown_endpoint(endpoint))
        raise StorageError.from_problem(StorageProblem.SETTINGS_INVALID, context) from error
    limit_redirects(client)
    if policy is not None:
        guard_client(client, policy)
    return client


def _configured_style(session: boto3.session.Session, endpoint: str | None) -> str:
    """The style of the AWS configuration file of this machine, or the default of an endpoint."""
    configured = session._session.get_scoped_config().get("s3")
    style = configured.get("addressing_style") if isinstance(configured, dict) else None
    return style or ("path" if endpoint else "auto")
