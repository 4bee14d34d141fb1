"""The hub's HTTP client in a pod: it connects only to allowed endpoints, also after a redirect."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from finetune_storage.endpoints import EndpointPolicy, has_proxy, process_policy


@cache
def guard_hub_client() -> None:
    """Make the hub's client check each request, once for the process. Does nothing on a shell."""
    policy = process_policy()
    if policy is None:
        return
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def make() -> Any:
        client = default_client_factory()
        hooks = client.event_hooks
        hooks["request"] = [lambda request: policy.check(str(request.url)), *hooks["request"]]
        if not has_proxy():
            hooks["response"] = [lambda answer: _check_peer(policy, answer), *hooks["response"]]
        client.event_hooks = hooks
        return client

    set_client_factory(make)
    if policy.is_limited or os.environ.get("HF_ENDPOINT"):
        # hf_xet has a client of its own, which connects to the hosts that the hub names
        constants.HF_HUB_DISABLE_XET = True


def _check_peer(policy: EndpointPolicy, answer: Any) -> None:
    """Discard the answer of an address that its host did not have when the request was checked."""
    stream = answer.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer:
        url = answer.request.url
        policy.check_peer(url.scheme, url.host, url.port or 0, str(peer[0]))
