"""The endpoints that a pod may connect to: those that an administrator allows.

The users of a namespace choose the address of the store and of the hub, which could be any service
that pods reach. Addresses of the node and of the metadata services of cloud providers are refused
unless the administrator lists them. Private addresses are not: stores in the cluster have them.

Each request is checked before it is sent, also one that a redirect changed, and each connection
before anything is written to it. The requests for credentials are not: boto3 sends them with other
sessions, to addresses of the node that only the pod's own environment names.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from finetune_api.names import ENV_ALLOWED_ENDPOINTS
from finetune_api.uris import PORTS, EndpointPattern, S3Uri
from finetune_storage.boto_errors import (
    CLIENT_ERRORS,
    UNKNOWN_CODE,
    error_code,
    http_status,
    not_a_store,
    storage_error,
)
from finetune_storage.errors import StorageError
from finetune_storage.messages import ProblemContext, StorageProblem

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NOT_LISTED = "the chart value pods.allowedEndpoints does not list it"
UNREADABLE = "it is not a URL with http or https"
METADATA = "its address is that of a metadata service"
# Metadata services outside the link-local networks: AWS, Google Cloud, Azure, Alibaba Cloud, and
# Oracle Cloud.
METADATA_NETWORKS = tuple(
    ip_network(network)
    for network in (
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
    )
)
THIS_HOST = ip_network("0.0.0.0/8")
NAT64 = ip_network("64:ff9b::/96")  # the last four bytes are an IPv4 address


class EndpointPolicy:
    """Which endpoints are allowed. Thread-safe."""

    def __init__(self, allowed: Iterable[str]) -> None:
        """allowed: texts of EndpointPattern; none: every host, except for some addresses."""
        self._patterns = [EndpointPattern.parse(text) for text in allowed]
        self._resolved: set[str] = set()  # hosts without a refused address

    @property
    def is_limited(self) -> bool:
        """Whether only listed hosts are allowed."""
        return bool(self._patterns)

    def check(self, url: str) -> None:
        """Raise StorageError (InvalidSpec) unless a request for the URL may be sent."""
        problem, host = UNREADABLE, ""
        try:
            parts = urlsplit(url)
            host = _plain(parts.hostname or "")
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            raise _refused(url, problem) from None
        if not host or parts.scheme not in PORTS:
            raise _refused(url, problem)
        matches = [one for one in self._patterns if one.has_match(parts.scheme, host, port)]
        if self._patterns and not matches:
            raise _refused(url, NOT_LISTED)
        if any(one.is_exact for one in matches) or host in self._resolved:
            return
        for address in _addresses(host, port):
            if found := find_problem(address):
                raise _refused(url, found)
        self._resolved.add(host)

    def check_peer(self, scheme: str, host: str, port: int, address: str) -> None:
        """Raise StorageError unless a connection to the host may be used.

        port: 0 for that of the scheme. address: to which it leads now; the name may have had
        another one when it was checked.
        """
        host, port = _plain(host), port or PORTS.get(scheme, 0)
        matches = (one for one in self._patterns if one.has_match(scheme, host, port))
        if not any(one.is_exact for one in matches) and (found := find_problem(address)):
            raise _refused(f"{scheme}://{host}:{port}", found)


def process_policy() -> EndpointPolicy | None:
    """The policy of this pod; None on a user's machine, and in a pod of an earlier version."""
    text = os.environ.get(ENV_ALLOWED_ENDPOINTS)
    return EndpointPolicy(json.loads(text)) if text else None


def has_proxy() -> bool:
    """Whether connections may lead to a proxy, which only an administrator chooses."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    return any(os.environ.get(name) or os.environ.get(name.upper()) for name in names)


def find_problem(address: str) -> str | None:
    """Why an address is refused, in words; None if it is not. address: IPv4 or IPv6."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return UNREADABLE
    found = _embedded(found)
    if any(found in network for network in METADATA_NETWORKS):
        return METADATA
    if found.is_loopback:
        return "its address is a loopback address"
    if found.is_link_local:
        return "its address is a link-local address"
    if found.is_unspecified or found in THIS_HOST or found.is_multicast:
        return "its address is not that of a host"
    return None


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address to which packets for an IPv6 address go, if there is one."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _addresses(host: str, port: int) -> list[str]:
    """The addresses of a host. None for an unknown one: a proxy may know it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


def _refused(url: str, problem: str) -> StorageError:
    try:
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        shown = "the endpoint"
    context = ProblemContext("", endpoint=shown, detail=problem)
    return StorageError.from_problem(StorageProblem.ENDPOINT_REFUSED, context)


def guard_client(client: S3Client, policy: EndpointPolicy) -> None:
    """Make a client refuse other endpoints. Raises StorageError (InvalidSpec) for its own one."""
    policy.check(client.meta.endpoint_url)

    def check(request: Any, **_: object) -> None:
        policy.check(request.url)

    client.meta.events.register("before-send.s3", check)
    # botocore has no public setting for the classes of connections
    endpoint: Any = client._endpoint  # type: ignore[attr-defined]
    endpoint.http_session._pool_classes_by_scheme.update(_pools(policy))


def limit_redirects(client: S3Client) -> None:
    """Stop botocore from following a redirect without a region until Python's stack ends.

    It asks for the region of the bucket, and the answer to that request can be such a redirect.
    """
    depth = threading.local()

    def begin(**_: object) -> None:
        depth.value = getattr(depth, "value", 0) + 1
        if depth.value > 1:
            raise ResponseParserError("a redirect without a region")

    def end(**_: object) -> None:
        depth.value = 0

    events = client.meta.events
    events.register("before-call.s3.HeadBucket", begin)
    events.register("after-call.s3.HeadBucket", end)
    events.register("after-call-error.s3.HeadBucket", end)


def prove_store(client: S3Client, uri: S3Uri, endpoint: str) -> None:
    """Raise StorageError unless the endpoint answers like S3 for an object that does not exist.

    Any other service could answer the address of an object with a document of its own, whose keys
    and values the messages about a data file would quote. uri: any, of the bucket.
    """
    key = f"finetune-no-such-object-{secrets.token_hex(8)}"
    try:
        client.get_object(Bucket=uri.bucket, Key=key)["Body"].close()
    except ClientError as error:
        code = error_code(error)  # the status, if the body is not an error of S3
        if code != UNKNOWN_CODE and not code.isdecimal():
            return
        if http_status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise storage_error(error, uri, endpoint) from error
    except CLIENT_ERRORS as error:
        raise storage_error(error, uri, endpoint) from error
    raise not_a_store(uri, endpoint)


def _pools(policy: EndpointPolicy) -> dict[str, type]:
    from botocore.awsrequest import (
        AWSHTTPConnection,
        AWSHTTPConnectionPool,
        AWSHTTPSConnection,
        AWSHTTPSConnectionPool,
    )

    def checked(connection: Any, scheme: str, sock: Any) -> Any:
        if connection.proxy is None:
            try:
                policy.check_peer(scheme, connection.host, connection.port, sock.getpeername()[0])
            except BaseException:
                sock.close()
                raise
        return sock

    class Http(AWSHTTPConnection):
        def _new_conn(self) -> Any:
            return checked(self, "http", super()._new_conn())

    class Https(AWSHTTPSConnection):
        def _new_conn(self) -> Any:
            return checked(self, "https", super()._new_conn())

    class HttpPool(AWSHTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(AWSHTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}
