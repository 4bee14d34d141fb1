"""The message of each storage problem, for the two audiences of a message.

A pod's message is published in a status: it names the keys of the Secret that the pod got its
settings from. A shell's message is printed on this machine: it names environment variables.
"""

from dataclasses import dataclass
from enum import StrEnum

from finetune_api.errors import Audience
from finetune_api.names import Reason
from finetune_api.outcome import Failure


class StorageProblem(StrEnum):
    """The kinds of problems that storage reports."""

    # S3 refuses
    NO_CREDENTIALS = "no-credentials"
    KEY_UNKNOWN = "key-unknown"
    SECRET_WRONG = "secret-wrong"  # noqa: S105 - a kind of problem
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - a kind of problem
    CLOCK_SKEW = "clock-skew"
    WRONG_REGION = "wrong-region"
    ACCESS_DENIED = "access-denied"
    REFUSED = "refused"  # for a reason without an entry of its own
    # It is not there, or it is there already
    BUCKET_MISSING = "bucket-missing"
    OBJECT_MISSING = "object-missing"
    ALREADY_EXISTS = "already-exists"
    # Another attempt can succeed
    CHANGED = "changed"
    TLS = "tls"
    UNREACHABLE = "unreachable"
    BUSY = "busy"
    # Settings and keys
    SETTINGS_INVALID = "settings-invalid"
    KEY_UNSAFE = "key-unsafe"
    KEY_IS_FOLDER = "key-is-folder"
    # Files of this machine that stand for objects
    FILE_MISSING = "file-missing"
    FILE_DENIED = "file-denied"
    FILE_UNUSABLE = "file-unusable"


@dataclass(frozen=True)
class ProblemContext:
    """The values that a message names. An empty one is not known, or does not apply."""

    uri: str  # the object, the prefix or the file
    endpoint: str = ""  # without a user name and a password
    code: str = ""  # the store's own error code, or the name of an exception
    bucket: str = ""
    detail: str = ""


@dataclass(frozen=True)
class ProblemText:
    """Templates of str.format over the fields of ProblemContext."""

    reason: str  # names.Reason
    problem: str  # what happened, and where
    pod: str = ""  # what to do where the settings are in Kubernetes objects
    shell: str = ""  # what to do on this machine


_SECRET = "the Secret that spec.storage.secretName names (default finetune-s3)"  # noqa: S105
_DENIED = "S3 denies access to {uri} at {endpoint} ({code}): "
_RETRY = "try again"

TEXTS = {
    StorageProblem.NO_CREDENTIALS: ProblemText(
        Reason.S3_ACCESS_DENIED,
        "no S3 credentials for {uri} at {endpoint}",
        f"put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into {_SECRET}, or give the namespace's "
        "finetune ServiceAccount a workload identity",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or set AWS_PROFILE",
    ),
    StorageProblem.KEY_UNKNOWN: ProblemText(
        Reason.S3_ACCESS_DENIED,
        _DENIED + "the store does not know the access key",
        f"check AWS_ACCESS_KEY_ID in {_SECRET}",
        "check AWS_ACCESS_KEY_ID in the environment",
    ),
    StorageProblem.SECRET_WRONG: ProblemText(
        Reason.S3_ACCESS_DENIED,
        _DENIED + "the secret key does not match the access key",
        f"check AWS_SECRET_ACCESS_KEY in {_SECRET}",
        "check AWS_SECRET_ACCESS_KEY in the environment",
    ),
    StorageProblem.TOKEN_EXPIRED: ProblemText(
        Reason.S3_ACCESS_DENIED,
        _DENIED + "the session token is expired or invalid",
        f"renew AWS_SESSION_TOKEN in {_SECRET}",
        "renew AWS_SESSION_TOKEN in the environment, or log in again",
    ),
    StorageProblem.CLOCK_SKEW: ProblemText(
        Reason.S3_ACCESS_DENIED,
        _DENIED + "the client's clock differs from the store's clock",
        "set the clock of the node",
        "set the clock of this machine",
    ),
    StorageProblem.WRONG_REGION: ProblemText(
        Reason.S3_ACCESS_DENIED,
        _DENIED + "the bucket is in another region",
        f"set AWS_REGION in {_SECRET}",
        "set AWS_REGION in the environment",
    ),
    StorageProblem.ACCESS_DENIED: ProblemText(
        Reason.S3_ACCESS_DENIED,
        _DENIED + "the credentials lack a permission",
        f"allow reading and writing that address for the credentials in {_SECRET}",
        "allow reading and writing that address for the credentials in the environment "
        "(AWS_ACCESS_KEY_ID or AWS_PROFILE), or use other credentials",
    ),
    StorageProblem.REFUSED: ProblemText(
        Reason.INTERNAL, "S3 refused a request for {uri} at {endpoint} with {code} (HTTP {detail})"
    ),
    StorageProblem.BUCKET_MISSING: ProblemText(
        Reason.BUCKET_NOT_FOUND,
        "there is no bucket {bucket!r} at {endpoint} (for {uri})",
        f"check the address, and AWS_ENDPOINT_URL in {_SECRET}",
        "check the address, and AWS_ENDPOINT_URL in the environment",
    ),
    StorageProblem.OBJECT_MISSING: ProblemText(
        Reason.DATA_NOT_FOUND,
        "{uri} does not exist (endpoint {endpoint})",
        "check the address",
        "check the address",
    ),
    StorageProblem.ALREADY_EXISTS: ProblemText(
        Reason.INTERNAL, "{uri} already exists and is not replaced"
    ),
    StorageProblem.CHANGED: ProblemText(
        Reason.S3_UNAVAILABLE,
        "{uri} at {endpoint} changed while it was read",
        "the next attempt reads it from the start",
        _RETRY,
    ),
    StorageProblem.TLS: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the TLS connection to {endpoint} failed for {uri}: its certificate is not trusted, or "
        "the endpoint speaks plain HTTP",
        f"check AWS_ENDPOINT_URL and AWS_CA_BUNDLE in {_SECRET}",
        "check AWS_ENDPOINT_URL and AWS_CA_BUNDLE in the environment",
    ),
    StorageProblem.UNREACHABLE: ProblemText(
        Reason.S3_UNAVAILABLE,
        "S3 at {endpoint} does not answer for {uri} ({code}, after retries)",
        f"check AWS_ENDPOINT_URL in {_SECRET}, and that pods can reach it",
        "check AWS_ENDPOINT_URL in the environment, and that this machine can reach it",
    ),
    StorageProblem.BUSY: ProblemText(
        Reason.S3_UNAVAILABLE,
        "S3 answers {code} for {uri} at {endpoint}, after retries",
        "try again when the store is healthy",
        "try again when the store is healthy",
    ),
    StorageProblem.SETTINGS_INVALID: ProblemText(
        Reason.INVALID_SPEC,
        "the AWS_* settings cannot be used ({code}): AWS_ENDPOINT_URL is {detail}",
        f"give it the form https://host:port in {_SECRET}",
        "give it the form https://host:port",
    ),
    StorageProblem.KEY_UNSAFE: ProblemText(
        Reason.INVALID_DATA,
        "the key {detail} below {uri} does not name a file below that prefix",
        "rename or delete the object",
        "rename or delete the object",
    ),
    StorageProblem.KEY_IS_FOLDER: ProblemText(
        Reason.INVALID_DATA,
        "{uri} has both an object {detail} and objects below that name, and a file cannot also be "
        "a folder",
        "delete one of the objects",
        "delete one of the objects",
    ),
    StorageProblem.FILE_MISSING: ProblemText(Reason.DATA_NOT_FOUND, "there is no file {uri}"),
    StorageProblem.FILE_DENIED: ProblemText(
        Reason.S3_ACCESS_DENIED,
        "permission denied for {uri}",
        "change the permissions of the file or its folder",
        "change the permissions of the file or its folder",
    ),
    StorageProblem.FILE_UNUSABLE: ProblemText(
        Reason.INVALID_SPEC, "{uri} cannot be used: {detail}"
    ),
}


def uploads_remain(prefix: object, code: str) -> str:
    """The weakness of a store whose unfinished uploads cannot be listed or aborted."""
    return (
        f"unfinished uploads of killed pods below {prefix} cannot be found and aborted ({code}). "
        "They keep their space. Allow s3:ListBucketMultipartUploads, s3:ListMultipartUploadParts, "
        "and s3:AbortMultipartUpload, or add a lifecycle rule to the bucket that aborts incomplete "
        "multipart uploads."
    )


def render(problem: StorageProblem, context: ProblemContext, audience: Audience) -> Failure:
    """The failure that a problem is for an audience.

    Pods get one message, which ends with the fix, because every place that shows a status shows
    the message. A shell gets the fix as the hint, which the command line prints on its own line.
    """
    text = TEXTS[problem]
    message = text.problem.format(**vars(context))
    if audience is Audience.SHELL:
        return Failure(code=text.reason, message=message, hint=text.shell or None)
    if text.pod:
        message = f"{message}. {text.pod[0].upper()}{text.pod[1:]}."
    return Failure(code=text.reason, message=message)
