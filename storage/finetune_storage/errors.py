"""From botocore's exceptions to sentences that say what, where and what to do.

S3's own texts never enter a message (a store may echo what it was sent); its error codes do.
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

from finetune_api.names import Reason
from finetune_api.uris import S3Uri
from finetune_storage.failures import StorageError

SECRET = "the Secret of spec.storage.secretName (default finetune-s3)"  # noqa: S105 - a name

# Everything that boto3 raises for a request. RetriesExceededError is s3transfer's own.
CLIENT_ERRORS = (BotoCoreError, ClientError, Boto3Error, RetriesExceededError)

_KEY_UNKNOWN = frozenset({"InvalidAccessKeyId", "InvalidClientTokenId", "NotSignedUp"})
_KEY_WRONG = frozenset({"SignatureDoesNotMatch", "InvalidSecurity"})
_KEY_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken"})
_CLOCK_WRONG = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_REGION_WRONG = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "PermanentRedirect",
        "IllegalLocationConstraintException",
        "301",
    }
)
_BUCKET_MISSING = frozenset({"NoSuchBucket", "InvalidBucketName"})
_KEY_MISSING = frozenset({"NoSuchKey", "NotFound", "NoSuchVersion", "404"})
_BUSY = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "429"})


def error_code(error: Exception) -> str:
    """S3's own code, the HTTP status of an answer without a body, or the exception's name."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code") or http_status(error))
    return type(error).__name__


def http_status(error: Exception) -> int:
    """0 where there was no answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def plain_endpoint(url: str) -> str:
    """The endpoint as it may be shown: without a user's name and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def shown_endpoint(url: str | None) -> str:
    """Any text that was given as an endpoint, as it may be shown."""
    try:
        return repr(plain_endpoint(url)) if url else "not set"
    except ValueError:
        return "not a URL"


def storage_error(error: Exception, uri: S3Uri, endpoint: str) -> StorageError:
    """The StorageError for what boto3 raised when it was asked for `uri`."""
    endpoint = plain_endpoint(endpoint)
    if isinstance(error, ClientError):
        return _refused(error_code(error), http_status(error), uri, endpoint)
    if isinstance(
        error,
        NoCredentialsError
        | PartialCredentialsError
        | CredentialRetrievalError
        | TokenRetrievalError,
    ):
        return StorageError.of(
            Reason.S3_ACCESS_DENIED,
            f"no S3 credentials for {uri} at {endpoint}: put AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY into {SECRET}, or give the namespace's finetune "
            "ServiceAccount a workload identity",
        )
    if isinstance(error, SSLError):
        return StorageError.of(
            Reason.S3_UNAVAILABLE,
            f"the TLS connection to {endpoint} failed for {uri}: its certificate is not trusted, "
            "or the endpoint speaks plain http; check AWS_ENDPOINT_URL and AWS_CA_BUNDLE",
        )
    return StorageError.of(
        Reason.S3_UNAVAILABLE,
        f"S3 at {endpoint} does not answer for {uri} ({error_code(error)}, after retries): check "
        f"AWS_ENDPOINT_URL in {SECRET} and that pods may reach it",
    )


def _refused(code: str, status: int, uri: S3Uri, endpoint: str) -> StorageError:
    place = f"{uri} at {endpoint}"
    if code in _BUCKET_MISSING:
        return bucket_missing(uri, endpoint)
    if code in _KEY_MISSING or status == HTTPStatus.NOT_FOUND:
        return StorageError.of(
            Reason.DATA_NOT_FOUND, f"{uri} does not exist (endpoint {endpoint}): check the address"
        )
    if status == HTTPStatus.PRECONDITION_FAILED:
        return StorageError.of(
            Reason.S3_UNAVAILABLE,
            f"{place} changed while it was read: another attempt reads it anew",
        )
    if code in _KEY_UNKNOWN:
        why = f"the access key is unknown there; check AWS_ACCESS_KEY_ID in {SECRET}"
    elif code in _KEY_WRONG:
        why = f"the secret key does not fit; check AWS_SECRET_ACCESS_KEY in {SECRET}"
    elif code in _KEY_EXPIRED:
        why = f"the session token is expired or wrong; renew it in {SECRET}"
    elif code in _CLOCK_WRONG:
        why = "the node's clock differs from the store's; set it"
    elif code in _REGION_WRONG:
        why = f"the bucket is in another region; set AWS_REGION in {SECRET}"
    elif status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or code == "AccessDenied":
        why = f"allow reading and writing it for the credentials in {SECRET}"
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _BUSY:
        return StorageError.of(
            Reason.S3_UNAVAILABLE,
            f"S3 answers {code} for {place}, after retries: try again when the store is well",
        )
    else:
        return StorageError.of(
            Reason.INTERNAL, f"S3 refused a request for {place} with {code} (HTTP {status})"
        )
    return StorageError.of(Reason.S3_ACCESS_DENIED, f"S3 denies access to {place} ({code}): {why}")


def bucket_missing(uri: S3Uri, endpoint: str) -> StorageError:
    """The bucket of `uri` is not at this endpoint."""
    return StorageError.of(
        Reason.BUCKET_NOT_FOUND,
        f"there is no bucket {uri.bucket!r} at {plain_endpoint(endpoint)} (for {uri}): check the "
        f"address, and AWS_ENDPOINT_URL in {SECRET}",
    )
