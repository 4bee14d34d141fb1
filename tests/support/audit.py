"""What the API server was asked, from its audit log: a counted write is exact on every machine."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def writes_by(audit_log: Path, user: str, namespace: str, start: int = 0) -> Counter[str]:
    """ "verb resource" -> count of a user's successful and refused writes in a namespace.

    `start`: a byte offset, so that a test counts its own time only.
    """
    found: Counter[str] = Counter()
    with audit_log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            try:
                event: dict[str, Any] = json.loads(line)
            except ValueError:
                continue  # the last line may be half written
            if event.get("stage") != "ResponseComplete" or event["verb"] not in WRITES:
                continue
            what = event.get("objectRef", {})
            if event["user"]["username"] == user and what.get("namespace") == namespace:
                parts = [what.get("resource", ""), what.get("subresource", "")]
                found[f"{event['verb']} {'/'.join(filter(None, parts))}"] += 1
    return found
