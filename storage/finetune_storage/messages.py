"""The message of each storage problem, for the two audiences of a message.

A pod's message is published in a status: it names the keys of the Secret that the pod got its
settings from. A shell's message is printed on this machine: it names environment variables.
"""

import os
from dataclasses import dataclass
from enum import StrEnum

from finetune_api.errors import Audience
from finetune_api.names import ENV_LOCAL_ROOT, Reason
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
    NOT_S3 = "not-s3"
    REFUSED = "refused"  # for a reason without an entry of its own
    # It is not there, or it is there already
    BUCKET_MISSING = "bucket-missing"
    OBJECT_MISSING = "object-missing"
    ALREADY_EXISTS = "already-exists"
    # Another attempt can succeed
    CHANGED = "changed"
    CERTIFICATE_UNKNOWN = "certificate-unknown"
    CERTIFICATE_DATE = "certificate-date"
    CERTIFICATE_NAME = "certificate-name"
    PLAIN_HTTP = "plain-http"
    TLS = "tls"
    PROXY_REFUSES = "proxy-refuses"
    PROXY_UNREACHABLE = "proxy-unreachable"
    NAME_UNKNOWN = "name-unknown"
    BUCKET_NAME_UNKNOWN = "bucket-name-unknown"
    UNREACHABLE = "unreachable"
    BUSY = "busy"
    # Settings and keys
    SETTINGS_INVALID = "settings-invalid"
    CERTIFICATES_UNUSABLE = "certificates-unusable"
    ADDRESSING_REFUSED = "addressing-refused"
    ADDRESSING_INVALID = "addressing-invalid"
    ENDPOINT_REFUSED = "endpoint-refused"
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
    proxy: str = ""  # without a user name and a password


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
    StorageProblem.NOT_S3: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the answer of {endpoint} for {uri} is not one of S3 ({code})",
        f"check AWS_ENDPOINT_URL in {_SECRET}: it must be the address of a store",
        "check AWS_ENDPOINT_URL in the environment: it must be the address of a store",
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
    StorageProblem.CERTIFICATE_UNKNOWN: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the certificate of {endpoint} is not signed by a trusted authority ({detail}), for {uri}",
        "ask an administrator to put the authority's certificate into the bundle that the chart "
        "value pods.certificates names",
        "set FINETUNE_CA_BUNDLE in the environment to a file with the authority's certificate",
    ),
    StorageProblem.CERTIFICATE_DATE: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the certificate of {endpoint} is not valid now ({detail}), for {uri}",
        "renew the certificate of the store, and check the clock of the node",
        "renew the certificate of the store, and check the clock of this machine",
    ),
    StorageProblem.CERTIFICATE_NAME: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the certificate of the server at {endpoint} is not for the name {detail}, for {uri}",
        "use a name of the certificate in AWS_ENDPOINT_URL in " + _SECRET + ", or, if only the "
        "name with the bucket is missing in it, set AWS_S3_ADDRESSING_STYLE to path there",
        "use a name of the certificate in AWS_ENDPOINT_URL, or, if only the name with the bucket "
        "is missing in it, set AWS_S3_ADDRESSING_STYLE=path in the environment",
    ),
    StorageProblem.CERTIFICATES_UNUSABLE: ProblemText(
        Reason.INVALID_SPEC,
        "the file of trusted certificates in {code} cannot be used ({detail})",
        "ask an administrator to check the bundle that the chart value pods.certificates names: "
        "PEM, with at least one certificate",
        "set FINETUNE_CA_BUNDLE or AWS_CA_BUNDLE in the environment to a PEM file with at least "
        "one certificate",
    ),
    StorageProblem.PLAIN_HTTP: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the server at {endpoint} does not speak TLS, for {uri}",
        f"write http:// instead of https:// in AWS_ENDPOINT_URL in {_SECRET}, or check its port",
        "write http:// instead of https:// in AWS_ENDPOINT_URL, or check its port",
    ),
    StorageProblem.TLS: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the TLS connection to {endpoint} failed for {uri} ({detail})",
        f"check AWS_ENDPOINT_URL in {_SECRET}, and the TLS settings of the store",
        "check AWS_ENDPOINT_URL in the environment, and the TLS settings of the store",
    ),
    StorageProblem.PROXY_REFUSES: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the proxy {proxy} refuses the connection to {endpoint} ({detail}), for {uri}",
        "allow the host in the proxy, or ask an administrator to add it to the chart value "
        "pods.proxy.exceptions",
        "allow the host in the proxy, or add it to NO_PROXY in the environment",
    ),
    StorageProblem.PROXY_UNREACHABLE: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the proxy {proxy} for {endpoint} cannot be reached ({detail}), for {uri}",
        "ask an administrator to check the chart value pods.proxy, and that pods can reach it",
        "check HTTPS_PROXY and HTTP_PROXY in the environment, or add the host to NO_PROXY",
    ),
    StorageProblem.NAME_UNKNOWN: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the name {detail} of the endpoint {endpoint} cannot be resolved, for {uri}",
        f"check AWS_ENDPOINT_URL in {_SECRET}, and the DNS of the cluster",
        "check AWS_ENDPOINT_URL in the environment, and the DNS of this machine",
    ),
    StorageProblem.BUCKET_NAME_UNKNOWN: ProblemText(
        Reason.S3_UNAVAILABLE,
        "the name {detail}, which virtual-host addressing uses for {uri}, cannot be resolved",
        "create a DNS record for all buckets of the store (*.HOST), or set "
        f"AWS_S3_ADDRESSING_STYLE to path in {_SECRET}",
        "create a DNS record for all buckets of the store (*.HOST), or set "
        "AWS_S3_ADDRESSING_STYLE=path in the environment",
    ),
    StorageProblem.ADDRESSING_REFUSED: ProblemText(
        Reason.INVALID_SPEC,
        "S3 at {endpoint} refuses the bucket's name in the path of {uri} ({code})",
        f"set AWS_S3_ADDRESSING_STYLE to virtual in {_SECRET}",
        "set AWS_S3_ADDRESSING_STYLE=virtual in the environment",
    ),
    StorageProblem.ADDRESSING_INVALID: ProblemText(
        Reason.INVALID_SPEC,
        "the addressing style of S3 cannot be used: {code} is {detail}",
        f"set AWS_S3_ADDRESSING_STYLE to auto, path, or virtual in {_SECRET}",
        "set AWS_S3_ADDRESSING_STYLE to auto, path, or virtual",
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
    StorageProblem.ENDPOINT_REFUSED: ProblemText(
        Reason.INVALID_SPEC,
        "connections to {endpoint} are not allowed: {detail}",
        f"choose another endpoint in {_SECRET}, or ask an administrator to add it to the chart "
        "value pods.allowedEndpoints",
        "choose another endpoint",
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


def process_audience() -> Audience:
    """SHELL in the processes of `finetune run`, POD in a pod.

    A pod's failure ends in a status. `finetune run` starts the same code on the user's machine,
    with FINETUNE_LOCAL_ROOT in its environment, and prints the failure.
    """
    return Audience.SHELL if os.environ.get(ENV_LOCAL_ROOT) else Audience.POD


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
