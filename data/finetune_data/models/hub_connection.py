"""Why no request reaches the hub, in a sentence for each audience: certificates, proxies, names."""

from __future__ import annotations

from finetune_api.errors import Audience
from finetune_api.outcome import Failure
from finetune_api.uris import HubUri
from finetune_data import failures
from finetune_storage.connections import Cause, ConnectionFault, proxy_of

HUB = "https://huggingface.co"

_CERTIFICATES = {
    Audience.POD: "ask an administrator to check the bundle that the chart value "
    "pods.certificates names",
    Audience.SHELL: "set FINETUNE_CA_BUNDLE in the environment to a file with the authority's "
    "certificate",
}
_PROXY = {
    Audience.POD: "ask an administrator to check the chart value pods.proxy, and to allow the hub "
    "in the proxy",
    Audience.SHELL: "check HTTPS_PROXY and NO_PROXY in the environment, and allow the hub in the "
    "proxy",
}
_SERVER = {
    Audience.POD: "check HF_ENDPOINT and its certificate, and the clock of the node",
    Audience.SHELL: "check HF_ENDPOINT and its certificate, and the clock of this machine",
}
_DATE = "its certificate is not valid now ({detail})"
_SENTENCES = {
    ConnectionFault.CERTIFICATE_UNKNOWN: (
        "its certificate is not signed by a trusted authority ({detail})",
        _CERTIFICATES,
    ),
    ConnectionFault.CERTIFICATE_EXPIRED: (_DATE, _SERVER),
    ConnectionFault.CERTIFICATE_EARLY: (_DATE, _SERVER),
    ConnectionFault.CERTIFICATE_NAME: ("its certificate is for another name", _SERVER),
    ConnectionFault.CERTIFICATES_UNUSABLE: (
        "the file of trusted certificates cannot be used ({detail})",
        _CERTIFICATES,
    ),
    ConnectionFault.PLAIN_HTTP: ("it does not speak TLS", _SERVER),
    ConnectionFault.TLS: ("the TLS connection failed ({detail})", _SERVER),
    ConnectionFault.PROXY_REFUSES: (
        "the proxy {proxy} refuses the connection ({detail})",
        _PROXY,
    ),
    ConnectionFault.PROXY_UNREACHABLE: ("the proxy {proxy} cannot be reached ({detail})", _PROXY),
    ConnectionFault.NAME_UNKNOWN: ("its name cannot be resolved", failures.NO_HUB),
}


def no_way_to_hub(name: str, uri: HubUri, audience: Audience, *, hub: str, cause: Cause) -> Failure:
    """name: of the base model. hub: its address."""
    sentence, remedy = _SENTENCES[cause.fault]
    problem = sentence.format(detail=cause.detail, proxy=proxy_of(hub) or "")
    return failures.no_way_to_hub(name, uri, hub, problem, remedy[audience])
