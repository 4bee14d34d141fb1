"""The cause of a failed connection, found in the exceptions of any HTTP client.

boto3 and the hub's client wrap the exceptions of `ssl` and `socket`, which have codes. Only the
refusal of a proxy has no class of its own: the texts of http.client and httpcore contain it.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass


class ConnectionFault(StrEnum):
    """Why no request reached the server."""

    CERTIFICATE_UNKNOWN = "certificate-unknown"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_EARLY = "certificate-early"
    CERTIFICATE_NAME = "certificate-name"
    CERTIFICATES_UNUSABLE = "certificates-unusable"  # the file of trusted authorities
    PLAIN_HTTP = "plain-http"
    TLS = "tls"
    PROXY_REFUSES = "proxy-refuses"
    PROXY_UNREACHABLE = "proxy-unreachable"
    NAME_UNKNOWN = "name-unknown"


@dataclass(frozen=True)
class Cause:
    """detail: a few words of the client about it, without addresses of the environment."""

    fault: ConnectionFault
    detail: str = ""


# Codes of X509_verify_cert, by OpenSSL's x509_vfy.h.
_VERIFY_CODES = {
    **dict.fromkeys((2, 18, 19, 20, 21, 24, 27, 28), ConnectionFault.CERTIFICATE_UNKNOWN),
    9: ConnectionFault.CERTIFICATE_EARLY,
    10: ConnectionFault.CERTIFICATE_EXPIRED,
    **dict.fromkeys((62, 63, 64), ConnectionFault.CERTIFICATE_NAME),
}
# What OpenSSL calls an answer that is not TLS; the words differ between its versions.
_NOT_TLS = {
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
}
_NO_CERTIFICATES = {"NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE", "BAD_BASE64_DECODE", "PEM_LIB"}
_REFUSAL = re.compile(r"(?:Tunnel connection failed: )?([1-5]\d\d\b[ \w-]{0,60})", re.ASCII)


def find_cause(error: BaseException, url: str) -> Cause | None:
    """The cause of a failed connection to a URL; None if the exceptions do not say it."""
    chain = list(_chain(error))
    kinds = {type(item).__name__ for item in chain}
    if kinds & {"ProxyError", "ProxyConnectionError"}:
        return _proxy_cause(chain)
    for item in chain:
        if isinstance(item, ssl.SSLError):
            return _tls_cause(item)
    if "CertificateError" in kinds:  # of urllib3, which compares names itself
        return Cause(ConnectionFault.CERTIFICATE_NAME)
    if "SSLError" in kinds:  # of urllib3, around an error that is not of TLS
        return _file_cause(chain)
    if kinds & {"ConnectError", "ConnectTimeout"} and proxy_of(url):
        return _proxy_cause(chain)  # the hub's client has no class of its own for it
    if any(isinstance(item, socket.gaierror) for item in chain):
        return Cause(ConnectionFault.NAME_UNKNOWN)
    return None


def _file_cause(chain: list[BaseException]) -> Cause:
    """The cause of an error while the trusted authorities were read."""
    found = next((item for item in chain if isinstance(item, OSError) and item.strerror), None)
    if found is None:
        return Cause(ConnectionFault.TLS)
    return Cause(ConnectionFault.CERTIFICATES_UNUSABLE, _lower(found.strerror or ""))


def proxy_of(url: str) -> str | None:
    """The proxy for a URL by the environment, without a password; None: it is reached directly."""
    parts = urlsplit(url)
    found = getproxies()
    proxy = found.get(parts.scheme) or found.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return shown_endpoint(proxy if "://" in proxy else f"http://{proxy}").strip("'")


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


def _proxy_cause(chain: list[BaseException]) -> Cause:
    for item in chain:
        if refusal := _REFUSAL.fullmatch(str(item)):
            return Cause(ConnectionFault.PROXY_REFUSES, refusal[1].strip())
    inner = [item for item in chain if isinstance(item, OSError)]
    if any(isinstance(item, socket.gaierror) for item in inner):
        return Cause(ConnectionFault.PROXY_UNREACHABLE, "its name cannot be resolved")
    last = next((item for item in inner if item.strerror), None)
    detail = last.strerror if last and last.strerror else type(chain[-1]).__name__
    return Cause(ConnectionFault.PROXY_UNREACHABLE, _lower(detail))


def _tls_cause(error: ssl.SSLError) -> Cause:
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _VERIFY_CODES.get(error.verify_code, ConnectionFault.TLS)
        return Cause(fault, error.verify_message.rstrip("."))
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return Cause(ConnectionFault.PLAIN_HTTP)
    if reason in _NO_CERTIFICATES:
        return Cause(ConnectionFault.CERTIFICATES_UNUSABLE, "it contains no certificate")
    return Cause(ConnectionFault.TLS, reason.replace("_", " ").lower())


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]


def is_refusal_of_proxy(status: int, url: str, *, is_from_store: bool) -> bool:
    """Whether an answer is the proxy's own: a plain HTTP request is answered by the proxy itself.

    is_from_store: the answer has an error code or a header of S3.
    """
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return True
    refusals = {HTTPStatus.FORBIDDEN, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}
    is_plain = url.startswith("http://") and proxy_of(url) is not None
    return is_plain and not is_from_store and status in refusals | {HTTPStatus.GATEWAY_TIMEOUT}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and all those that it wraps, the outermost first."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        item = waiting.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        inner = (
            item.__cause__,
            item.__context__,
            getattr(item, "reason", None),
            *item.args,
            *getattr(item, "kwargs", {}).values(),
        )
        waiting += [value for value in inner if isinstance(value, BaseException)]
