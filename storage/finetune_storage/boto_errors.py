"""Maps the exceptions of boto3 to StorageError.

S3's own texts never enter a message, because a store can echo the request; its error codes do.
"""

from http import HTTPStatus
from urllib.parse import urlsplit, urlunsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    TokenRetrievalError,
)
from s3transfer.exceptions import RetriesExceededError

from finetune_api.uris import S3Uri
from finetune_storage.errors import StorageError
from finetune_storage.messages import ProblemContext, StorageProblem

# Everything that boto3 raises for a request. RetriesExceededError is s3transfer's own.
CLIENT_ERRORS = (BotoCoreError, ClientError, Boto3Error, RetriesExceededError)

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
    StorageProblem.BUSY: ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "429"),
}
_PROBLEMS = {code: problem for problem, codes in _CODES.items() for code in codes}
_PROBLEMS_OF_STATUS: dict[int, StorageProblem] = {
    HTTPStatus.NOT_FOUND: StorageProblem.OBJECT_MISSING,
    HTTPStatus.PRECONDITION_FAILED: StorageProblem.CHANGED,
    HTTPStatus.UNAUTHORIZED: StorageProblem.ACCESS_DENIED,
    HTTPStatus.FORBIDDEN: StorageProblem.ACCESS_DENIED,
}


def error_code(error: Exception) -> str:
    """S3's own code, or the HTTP status of an answer without a body, or the exception's name."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code") or http_status(error))
    return type(error).__name__


def http_status(error: Exception) -> int:
    """The HTTP status of S3's answer; 0 without an answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def plain_endpoint(url: str) -> str:
    """The endpoint without a user name and a password, for messages."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def shown_endpoint(url: str | None) -> str:
    """Any text that a setting holds as the endpoint, for messages."""
    try:
        return repr(plain_endpoint(url)) if url else "not set"
    except ValueError:
        return "not a URL"


def storage_error(error: Exception, uri: S3Uri, endpoint: str) -> StorageError:
    """The StorageError for an exception that boto3 raised for a request about `uri`."""
    context = ProblemContext(
        uri=str(uri),
        endpoint=plain_endpoint(endpoint),
        code=error_code(error),
        bucket=uri.bucket,
        detail=str(http_status(error)),
    )
    return StorageError.from_problem(_problem(error), context)


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


def _problem(error: Exception) -> StorageProblem:
    """The kind of problem that any exception of CLIENT_ERRORS is."""
    if isinstance(error, ClientError):
        return _refusal(error_code(error), http_status(error))
    if isinstance(error, _CREDENTIAL_ERRORS):
        return StorageProblem.NO_CREDENTIALS
    return StorageProblem.TLS if isinstance(error, SSLError) else StorageProblem.UNREACHABLE


def _refusal(code: str, status: int) -> StorageProblem:
    """The kind of problem that S3's answer is: its code if it is known, else its HTTP status."""
    if code in _PROBLEMS:
        return _PROBLEMS[code]
    if status in _PROBLEMS_OF_STATUS:
        return _PROBLEMS_OF_STATUS[status]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StorageProblem.BUSY
    return StorageProblem.REFUSED
