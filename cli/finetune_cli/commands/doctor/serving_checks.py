"""Checks whether the operator serves the Models that have spec.serve. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from finetune_api.wire import JsonObject
from finetune_cli.commands.doctor.findings import Finding

CHECK = "served models"
NAMES_SHOWN = 3


def serving_findings(models: Sequence[JsonObject], namespace: str) -> Iterator[Finding]:
    """What is wrong with served Models; one finding without a problem; none without such Models."""
    served = [item for item in models if item.get("spec", {}).get("serve") is not None]
    ignored = [item["metadata"]["name"] for item in served if not _serving(item)]
    failed = [item for item in served if _serving(item).get("state") == "failed"]
    if ignored:
        yield Finding(
            "error",
            CHECK,
            f"the operator does not serve {', '.join(ignored[:NAMES_SHOWN])}, although spec.serve "
            "is set: its chart value serving.enabled is false, or it is not running",
            "ask an administrator for the chart value serving.enabled=true",
        )
    for item in failed:
        name = item["metadata"]["name"]
        yield Finding(
            "warning",
            CHECK,
            f"{name} failed ({_serving(item).get('reason', '')}): "
            f"{_serving(item).get('message', '')}",
            f"kubectl describe model {shlex.quote(name)} -n {namespace}",
        )
    if served and not ignored and not failed:
        states = Counter(str(_serving(item).get("state")) for item in served)
        yield Finding("ok", CHECK, ", ".join(f"{count} {state}" for state, count in states.items()))


def _serving(item: JsonObject) -> JsonObject:
    found: JsonObject = (item.get("status") or {}).get("serving") or {}
    return found
