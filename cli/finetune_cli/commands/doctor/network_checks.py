"""Reports the proxy to S3, and the files of certificates that the environment names."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

from finetune_api.names import ENV_CERTIFICATES
from finetune_cli.commands.doctor.findings import Finding

CHECK = "S3 network"
BUNDLES = (ENV_CERTIFICATES, "AWS_CA_BUNDLE")


def named_bundles() -> dict[str, str]:
    """The files of certificates that the environment names, by the variable."""
    return {name: os.environ[name] for name in BUNDLES if os.environ.get(name)}


def proxy_findings(endpoint: str) -> Iterator[Finding]:
    """The proxy for the endpoint of S3, if any."""
    from finetune_storage.connections import proxy_of

    if proxy := proxy_of(endpoint):
        yield Finding("ok", CHECK, f"requests to {endpoint} use the proxy {proxy}")


def bundle_findings(paths: dict[str, str], now: datetime) -> Iterator[Finding]:
    """Whether files of certificates can be read, and their certificates are valid.

    paths: by the variable that names them.
    """
    for variable, path in paths.items():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=path)
        except OSError as error:  # an SSLError is one
            no_certificate = isinstance(error, ssl.SSLError)
            why = "it contains no certificate" if no_certificate else error.strerror
            yield Finding(
                "error",
                CHECK,
                f"{variable} is {path}, which cannot be used: {why}",
                "set it to a PEM file with at least one certificate",
            )
            continue
        found = context.get_ca_certs()
        ended = [item for item in found if _end(str(item["notAfter"])) < now]
        if found and len(ended) == len(found):
            yield Finding(
                "warning",
                CHECK,
                f"all certificates in {variable} ({path}) have expired, one on "
                f"{ended[0]['notAfter']}",
                "replace them with the authority's current certificates",
            )
        else:
            yield Finding("ok", CHECK, f"{variable} is {path} (certificates: {len(found)})")


def _end(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
