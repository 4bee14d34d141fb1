"""Maps the exceptions of boto3 to StorageError.

The texts of an answer never enter a message: a store can echo the request, and an endpoint can be
any service. Its error code does, if it has the form of one.
"""

import os
import re
from http import HTTPStatus
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError

from finetune_api.uris import S3Uri
from finetune_storage.connections import (
    Cause,
    ConnectionFault,
    find_cause,
    is_refusal_of_proxy,
    plain_endpoint,
    proxy_of,
)
from finetune_storage.errors import StorageError
from finetune_storage.messages import ProblemContext, StorageProblem

# For an answer that is not one of S3, with its body, a header, or the name of a missing element.
_UNREADABLE = (ResponseParserError, ValueError, LookupError)
# Everything that boto3 raises for a request. RetriesExceededError is s3transfer's own.
CLIENT_ERRORS = (BotoCoreError, ClientError, Boto3Error, RetriesExceededError, *_UNREADABLE)
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9]{0,47}|[1-5][0-9]{2}")
UNKNOWN_CODE = "an unknown error code"

_CREDENTIAL_ERRORS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
)
_CODES = {
    StorageProblem.BUCKET_MISSING: ("NoSuchBucket", "InvalidBucketName"),
    StorageProblem.OBJECT_MISSING: ("NoSuchKey", "NotFound", "NoSuchVersion", "404"),
    StorageProblem.KEY_UNKNOWN: ("InvalidAccessKeyId", "InvalidClientTokenId", "NotSignedUp"),
    StorageProblem.SECRET_WRONG: ("SignatureDoesNotMatch", "InvalidSecurity"),
    StorageProblem.TOKEN_EXPIRED: ("ExpiredToken", "ExpiredTokenException", "InvalidToken"),
    StorageProblem.CLOCK_SKEW: ("RequestTimeTooSkewed", "RequestExpired"),
    StorageProblem.WRONG_REGION: (
        "AuthorizationHeaderMalformed",
        "PermanentRedirect",
        "IllegalLocationConstraintException",
        "301",
    ),
    StorageProblem.ACCESS_DENIED: ("AccessDenied",),
    # stores that require virtual-host addressing, such as those of Alibaba Cloud and Tencent Cloud
    StorageProblem.ADDRESSING_REFUSED: ("SecondLevelDomainForbidden", "PathStyleDomainForbidden"),
    StorageProblem.BUSY: ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "429"),
}
_PROBLEMS = {code: problem for problem, codes in _CODES.items() for code in codes}
_PROBLEMS_OF_STATUS: dict[int, StorageProblem] = {
    HTTPStatus.NOT_FOUND: StorageProblem.OBJECT_MISSING,
    HTTPStatus.PRECONDITION_FAILED: StorageProblem.CHANGED,
    HTTPStatus.UNAUTHORIZED: StorageProblem.ACCESS_DENIED,
    HTTPStatus.FORBIDDEN: StorageProblem.ACCESS_DENIED,
}
_FAULTS = {
    ConnectionFault.CERTIFICATE_UNKNOWN: StorageProblem.CERTIFICATE_UNKNOWN,
    ConnectionFault.CERTIFICATE_EXPIRED: StorageProblem.CERTIFICATE_DATE,
    ConnectionFault.CERTIFICATE_EARLY: StorageProblem.CERTIFICATE_DATE,
    ConnectionFault.CERTIFICATE_NAME: StorageProblem.CERTIFICATE_NAME,
    ConnectionFault.CERTIFICATES_UNUSABLE: StorageProblem.CERTIFICATES_UNUSABLE,
    ConnectionFault.PLAIN_HTTP: StorageProblem.PLAIN_HTTP,
    ConnectionFault.TLS: StorageProblem.TLS,
    ConnectionFault.PROXY_REFUSES: StorageProblem.PROXY_REFUSES,
    ConnectionFault.PROXY_UNREACHABLE: StorageProblem.PROXY_UNREACHABLE,
    ConnectionFault.NAME_UNKNOWN: StorageProblem.NAME_UNKNOWN,
}


def error_code(error: Exception) -> str:
    """S3's own code, or the HTTP status of an answer without a body, or the exception's name."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code") or http_status(error))
        return code if _CODE.fullmatch(code) else UNKNOWN_CODE
    return type(error).__name__


def http_status(error: Exception) -> int:
    """The HTTP status of S3's answer; 0 without an answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def storage_error(error: Exception, uri: S3Uri, endpoint: str) -> StorageError:
    """The StorageError for an exception that boto3 raised for a request about `uri`."""
    refused = error.kwargs.get("error") if isinstance(error, BotoCoreError) else None
    if isinstance(refused, StorageError):  # a connection that the endpoint policy refused
        return refused
    cause = _connection_cause(error, endpoint)
    if cause is not None:
        return _connection_error(cause, error, uri, endpoint)
    context = ProblemContext(
        uri=str(uri),
        endpoint=plain_endpoint(endpoint),
        code=error_code(error),
        bucket=uri.bucket,
        detail=str(http_status(error)),
    )
    return StorageError.from_problem(_problem(error), context)


def _connection_cause(error: Exception, endpoint: str) -> Cause | None:
    """Why no request reached the store; None if it answered, or if the exceptions do not say it."""
    if not isinstance(error, ClientError):
        is_login = isinstance(error, _CREDENTIAL_ERRORS)
        return None if is_login else find_cause(error, endpoint)
    status = http_status(error)
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    is_from_store = error_code(error) != str(status) or any(
        name.lower().startswith("x-amz-") for name in headers
    )
    if is_refusal_of_proxy(status, endpoint, is_from_store=is_from_store):
        return Cause(ConnectionFault.PROXY_REFUSES, f"HTTP {status}")
    return None


def _connection_error(cause: Cause, error: Exception, uri: S3Uri, endpoint: str) -> StorageError:
    problem, detail = _FAULTS[cause.fault], cause.detail
    code = error_code(error)
    if problem in {StorageProblem.NAME_UNKNOWN, StorageProblem.CERTIFICATE_NAME}:
        detail = _requested_host(error) or urlsplit(endpoint).hostname or ""
    if problem is StorageProblem.NAME_UNKNOWN and detail.startswith(f"{uri.bucket}."):
        problem = StorageProblem.BUCKET_NAME_UNKNOWN
    if problem is StorageProblem.CERTIFICATES_UNUSABLE:
        code, path = _trusted_file()
        detail = f"{path}: {detail}"
    context = ProblemContext(
        uri=str(uri),
        endpoint=plain_endpoint(endpoint),
        code=code,
        bucket=uri.bucket,
        detail=detail or code,
        proxy=proxy_of(endpoint) or "",
    )
    return StorageError.from_problem(problem, context)


def _trusted_file() -> tuple[str, str]:
    """The variable that names the file of trusted authorities, and the file."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name):
            return name, os.environ[name]
    return "AWS_CA_BUNDLE", "ca_bundle in the AWS configuration file"


def _requested_host(error: Exception) -> str:
    """The name that was looked up: with virtual-host addressing, it contains the bucket."""
    url = getattr(error, "kwargs", {}).get("endpoint_url", "")
    return urlsplit(str(url)).hostname or ""


def bucket_missing(uri: S3Uri, endpoint: str) -> StorageError:
    """The bucket of `uri` is not at this endpoint."""
    context = ProblemContext(str(uri), plain_endpoint(endpoint), bucket=uri.bucket)
    return StorageError.from_problem(StorageProblem.BUCKET_MISSING, context)


def size_missing(uri: S3Uri, endpoint: str) -> StorageError:
    """The store answers without the object's size, which must not count as that of an empty one."""
    context = ProblemContext(
        str(uri), plain_endpoint(endpoint), "an answer without Content-Length", detail="200"
    )
    return StorageError.from_problem(StorageProblem.REFUSED, context)


def not_a_store(uri: S3Uri, endpoint: str) -> StorageError:
    """The endpoint answers for an object that does not exist, or without an error of S3."""
    context = ProblemContext(str(uri), plain_endpoint(endpoint), "no error of S3 where one belongs")
    return StorageError.from_problem(StorageProblem.NOT_S3, context)


def _problem(error: Exception) -> StorageProblem:
    """The kind of problem that any exception of CLIENT_ERRORS is."""
    if isinstance(error, ClientError):
        return _refusal(error_code(error), http_status(error))
    if isinstance(error, _CREDENTIAL_ERRORS):
        return StorageProblem.NO_CREDENTIALS
    if isinstance(error, _UNREADABLE):
        return StorageProblem.NOT_S3
    return StorageProblem.UNREACHABLE


def _refusal(code: str, status: int) -> StorageProblem:
    """The kind of problem that S3's answer is: its code if it is known, else its HTTP status."""
    if code in _PROBLEMS:
        return _PROBLEMS[code]
    if status in _PROBLEMS_OF_STATUS:
        return _PROBLEMS_OF_STATUS[status]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StorageProblem.BUSY
    return StorageProblem.REFUSED
