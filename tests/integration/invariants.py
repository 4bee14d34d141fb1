"""The invariants that hold after every fault."""

import time
from collections import Counter
from pathlib import Path

from finetune_api import names
from tests.integration.conftest import Operator
from tests.support.audit import writes_by
from tests.support.kubectl import Kubectl, until

EVENTS_AT_MOST = 12  # of one FineTune, its epochs among them
QUIET_SECONDS = 3.0


def check_invariants(team: Kubectl, operator: Operator, audit_log: Path) -> None:
    """Check: one Job per attempt, no orphans, no finalizers, few Events, and no further writes."""
    finetunes = {item["metadata"]["uid"]: item for item in team.list("finetunes")}
    jobs = [job for job in team.list("jobs") if "deletionTimestamp" not in job["metadata"]]
    made = Counter(
        (
            job["metadata"]["labels"].get(names.LABEL_UID),
            job["metadata"]["labels"].get(names.LABEL_COMPONENT),
            job["metadata"]["labels"].get(names.LABEL_ATTEMPT),
        )
        for job in jobs
        if names.LABEL_UID in job["metadata"].get("labels", {})
    )
    assert set(made.values()) <= {1}, made
    for finetune in finetunes.values():
        assert "finalizers" not in finetune["metadata"]
        open_ones = [
            item for item in finetune["status"].get("attempts", []) if "endedAt" not in item
        ]
        is_terminal = finetune["status"]["state"] in names.TERMINAL_STATES
        assert len(open_ones) <= (0 if is_terminal else 1)
    events = Counter(event["involvedObject"]["uid"] for event in team.list("events"))
    assert all(events[uid] <= EVENTS_AT_MOST for uid in finetunes), events
    _wait_for_silence(team, operator, audit_log)
    for uid, finetune in finetunes.items():
        if finetune["status"]["state"] in names.TERMINAL_STATES:
            now = team.get("finetune", finetune["metadata"]["name"])
            assert now["metadata"]["uid"] == uid
            assert now["status"] == finetune["status"]


def _wait_for_silence(team: Kubectl, operator: Operator, audit_log: Path) -> None:
    """Wait until the last Events are posted and no write follows."""
    before = writes_by(audit_log, operator.user, team.namespace)

    def is_quiet() -> bool:
        nonlocal before
        time.sleep(QUIET_SECONDS)
        former, before = before, writes_by(audit_log, operator.user, team.namespace)
        return former == before

    until(is_quiet, 30, lambda: f"the operator keeps writing: {before}")
