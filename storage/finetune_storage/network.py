"""Prepares the environment of this process for its HTTP clients: authorities and proxy exceptions.

boto3, the hub's client, and its download library read different variables, and each replaces the
public authorities with the file in its own. FINETUNE_CA_BUNDLE adds its file to them instead.
"""

import atexit
import ipaddress
import os
import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from finetune_api.names import (
    ADDRESSING_STYLES,
    ENV_ADDRESSING_STYLE,
    ENV_CERTIFICATES,
    ENV_DEFAULT_ADDRESSING_STYLE,
)
from finetune_storage.errors import StorageError
from finetune_storage.messages import ProblemContext, StorageProblem

# botocore reads the first, httpx and rustls the second, requests and botocore the third.
VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "HF_ENDPOINT")
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
BYTES_AT_MOST = 2**24  # all public authorities have about 250 kB

_written: set[str] = set()  # the files of this process


def prepare_network(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that the HTTP clients of this process and of its children read.

    Raises StorageError (InvalidSpec) for a file of certificates that cannot be used.
    """
    _trust(environment)
    _bypass_proxies(environment)


def addressing_style(environment: Mapping[str, str]) -> str:
    """The style that the environment names: the Secret's or the user's, or the chart's.

    Empty: it names none. Raises StorageError (InvalidSpec) for another word.
    """
    for name in (ENV_ADDRESSING_STYLE, ENV_DEFAULT_ADDRESSING_STYLE):
        style = environment.get(name, "").strip()
        if style and style not in ADDRESSING_STYLES:
            context = ProblemContext("", code=name, detail=repr(style[:40]))
            raise StorageError.from_problem(StorageProblem.ADDRESSING_INVALID, context)
        if style:
            return style
    return ""


def merged_certificates(bundle: Path, others: list[Path]) -> bytes:
    """The certificates of a file and those of `others`, in PEM, each once.

    Raises StorageError (InvalidSpec) for a file that is missing, or that has no certificate.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(bundle))
        found = dict.fromkeys(_certificates(bundle))
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = "it contains no certificate" if isinstance(error, ssl.SSLError) else str(error)
        if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
            why = error.strerror[:1].lower() + error.strerror[1:]
        context = ProblemContext("", code=ENV_CERTIFICATES, detail=f"{bundle}: {why}")
        raise StorageError.from_problem(StorageProblem.CERTIFICATES_UNUSABLE, context) from error
    for path in others:
        with suppress(OSError, ValueError):  # a file that the user may not know of
            found |= dict.fromkeys(_certificates(path))
    return b"\n".join(found) + b"\n"


def _trust(environment: MutableMapping[str, str]) -> None:
    bundle = environment.get(ENV_CERTIFICATES)
    if not bundle or environment.get(VARIABLES[0]) in _written:
        return
    from botocore.httpsession import where

    others = [Path(where()), Path(ssl.get_default_verify_paths().openssl_cafile)]
    others += [Path(environment[name]) for name in VARIABLES if environment.get(name)]
    data = merged_certificates(Path(bundle), others)
    handle, name = tempfile.mkstemp(prefix="finetune-certificates-", suffix=".pem")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    atexit.register(_remove, Path(name), os.getpid())
    _written.add(name)
    environment.update(dict.fromkeys(VARIABLES, name))


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # and not in a child that was forked
        path.unlink(missing_ok=True)


def _certificates(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        data = file.read(BYTES_AT_MOST + 1)
    if len(data) > BYTES_AT_MOST:
        raise ValueError(f"it has more than {BYTES_AT_MOST:,} bytes")
    return iter(CERTIFICATE.findall(data.replace(b"\r\n", b"\n")))


def _bypass_proxies(environment: MutableMapping[str, str]) -> None:
    """Write the exceptions so that all clients understand them.

    botocore compares only the ends of names: it knows neither networks nor `*.`, and expects the
    brackets of IPv6 addresses. So the addresses of the endpoints are added one by one.
    """
    written = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    exceptions = [item.strip() for item in written.split(",") if item.strip()]
    if not exceptions:
        return
    added = [item[1:] for item in exceptions if item.startswith("*.")]
    networks = list(_networks(exceptions))
    for name in ENDPOINTS:
        host = _host(environment.get(name, ""))
        with suppress(ValueError):
            address = ipaddress.ip_address(host)
            if any(address in network for network in networks):
                added += [host, f"[{host}]"] if address.version == 6 else [host]
    new = [item for item in dict.fromkeys(added) if item not in exceptions]
    if new:
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = ",".join([*exceptions, *new])


def _networks(exceptions: list[str]) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for item in exceptions:
        with suppress(ValueError):
            yield ipaddress.ip_network(item.strip("[]"), strict=False)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
