"""Every storage problem has a message for pods and one for the shell."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    SSLError,
)

from finetune_api.errors import Audience
from finetune_api.names import ENV_LOCAL_ROOT, Reason
from finetune_api.uris import S3Uri
from finetune_storage.boto_errors import storage_error
from finetune_storage.errors import StorageError
from finetune_storage.messages import TEXTS, ProblemContext, StorageProblem, process_audience

CONTEXT = ProblemContext("s3://acme/x", "https://s3.example", "SomeCode", "acme", "some detail")
REASONS = {value for name, value in vars(Reason).items() if name.isupper()}


@pytest.mark.parametrize("problem", StorageProblem)
def test_each_audience_gets_a_message_with_the_fix_in_its_own_settings(
    problem: StorageProblem,
) -> None:
    text = TEXTS[problem]
    error = StorageError.from_problem(problem, CONTEXT)
    pod, shell = error.failure_for(Audience.POD), error.failure_for(Audience.SHELL)
    assert pod == error.failure
    assert str(error) == pod.message
    assert pod.code == shell.code == text.reason
    assert text.reason in REASONS
    assert pod.message.startswith(shell.message)
    assert pod.hint is None
    assert bool(text.pod) == bool(text.shell)
    if text.pod:
        assert pod.message.endswith(f"{text.pod[1:]}.")
        assert shell.hint == text.shell
    for word in ("Secret", "ServiceAccount", "pods", "node"):
        assert word not in f"{shell.message} {shell.hint}"
    assert "environment" not in pod.message
    assert "{" not in f"{pod.message} {shell.message} {shell.hint}"


def refusal(code: str, status: int) -> ClientError:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (NoCredentialsError(), StorageProblem.NO_CREDENTIALS),
        (SSLError(endpoint_url="u", error="e"), StorageProblem.TLS),
        (EndpointConnectionError(endpoint_url="u"), StorageProblem.UNREACHABLE),
        (refusal("InvalidAccessKeyId", 403), StorageProblem.KEY_UNKNOWN),
        (refusal("SignatureDoesNotMatch", 403), StorageProblem.SECRET_WRONG),
        (refusal("ExpiredToken", 400), StorageProblem.TOKEN_EXPIRED),
        (refusal("RequestTimeTooSkewed", 403), StorageProblem.CLOCK_SKEW),
        (refusal("PermanentRedirect", 301), StorageProblem.WRONG_REGION),
        (refusal("AccessDenied", 403), StorageProblem.ACCESS_DENIED),
        (refusal("", 401), StorageProblem.ACCESS_DENIED),
        (refusal("NoSuchBucket", 404), StorageProblem.BUCKET_MISSING),
        (refusal("NoSuchKey", 404), StorageProblem.OBJECT_MISSING),
        (refusal("", 404), StorageProblem.OBJECT_MISSING),
        (refusal("PreconditionFailed", 412), StorageProblem.CHANGED),
        (refusal("SlowDown", 503), StorageProblem.BUSY),
        (refusal("InternalError", 500), StorageProblem.BUSY),
        (refusal("EntityTooLarge", 400), StorageProblem.REFUSED),
    ],
)
def test_every_exception_of_boto3_becomes_its_problem(
    error: Exception, problem: StorageProblem
) -> None:
    found = storage_error(error, S3Uri("acme", "x"), "https://user:password@s3.example")
    assert found.problem is problem
    assert found.context is not None
    assert found.context.endpoint == "https://s3.example"
    assert "password" not in f"{found.failure} {found.failure_for(Audience.SHELL)}"


def test_an_error_about_a_field_keeps_its_problem_and_both_messages() -> None:
    error = StorageError.from_problem(StorageProblem.KEY_UNKNOWN, CONTEXT).about("trainingFile")
    assert error.problem is StorageProblem.KEY_UNKNOWN
    for audience in Audience:
        assert error.failure_for(audience).param == "trainingFile"
    assert error.failure_for(Audience.SHELL).hint == TEXTS[StorageProblem.KEY_UNKNOWN].shell


def test_a_run_on_this_machine_reads_the_messages_for_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(ENV_LOCAL_ROOT, raising=False)
    assert process_audience() is Audience.POD
    monkeypatch.setenv(ENV_LOCAL_ROOT, "runs")
    assert process_audience() is Audience.SHELL
