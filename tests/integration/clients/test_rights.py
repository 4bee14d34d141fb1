"""The rights of the gateway's account, from the audit log: those that it has, and that it uses."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from devcluster.controlplane import ControlPlane
from finetune_gateway.wire.openapi.document import build_document
from tests.integration.clients.conftest import OWNER, USER, Gateway
from tests.support.audit import events
from tests.support.kubectl import finetune

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def ask(gateway: Gateway, account: str, method: str, path: str) -> int:
    """The status of a request without a body."""
    request = urllib.request.Request(
        f"{gateway.url.removesuffix('/v1')}{path}",
        method=method.upper(),
        headers={"Authorization": f"Bearer {gateway.keys[account]}"},
        data=b"{}" if method == "post" else None,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_account_of_the_gateway_uses_each_of_its_rights_and_no_others(
    gateway: Gateway, control_plane: ControlPlane
) -> None:
    start = control_plane.audit_log.stat().st_size
    gateway.team.apply(finetune("a", model="ada"))
    for account in (USER, OWNER):
        for path, methods in build_document()["paths"].items():
            for method in methods:
                filled = path.replace("{id}", "ft-a").replace("{permission}", "p")
                status = ask(gateway, account, method, filled.replace("{model}", "ada"))
                assert status < 500 or status == 503, (method, path)
    own = f"system:serviceaccount:{gateway.team.namespace}:{gateway.account}"
    seen = [
        event
        for event in events(control_plane.audit_log, start)
        if event["user"].get("username") == own and event.get("stage") == "ResponseComplete"
    ]
    used = {event["impersonatedUser"]["username"] for event in seen if "impersonatedUser" in event}
    plain = {event["requestURI"] for event in seen if "impersonatedUser" not in event}
    assert plain <= {"/readyz", "/livez", "/version"}, "a request as the gateway itself"
    roles = gateway.team.list("roles")
    rules = [rule for role in roles for rule in role["rules"] if rule["verbs"] == ["impersonate"]]
    granted = {
        f"system:serviceaccount:{gateway.team.namespace}:{name}"
        for rule in rules
        for name in rule["resourceNames"]
    }
    assert used == granted
    assert all(rule["resources"] == ["serviceaccounts"] for rule in rules)


def test_the_requests_of_a_user_need_no_more_than_the_role_of_the_chart(
    gateway: Gateway, control_plane: ControlPlane
) -> None:
    """What the gateway asks as a user or an owner, from the audit log, is in their Roles."""
    start = control_plane.audit_log.stat().st_size
    gateway.team.apply(finetune("b", model="ada"))
    for method, path in (
        ("get", "/v1/fine-tunes"),
        ("get", "/v1/fine_tuning/jobs/ftjob-b"),
        ("get", "/v1/fine_tuning/jobs/ftjob-b/events"),
        ("post", "/v1/fine_tuning/jobs/ftjob-b/pause"),
        ("post", "/v1/fine_tuning/jobs/ftjob-b/resume"),
        ("get", "/v1/models"),
        ("get", "/v1/files"),
    ):
        assert ask(gateway, USER, method, path) == 200, path
    assert ask(gateway, USER, "delete", "/v1/fine-tunes/ft-b") == 403
    assert ask(gateway, OWNER, "delete", "/v1/fine-tunes/ft-b") == 200
    rules = {role["metadata"]["name"]: role["rules"] for role in gateway.team.list("roles")}
    for account, role in ((USER, "finetune-user"), (OWNER, "finetune-owner")):
        name = f"system:serviceaccount:{gateway.team.namespace}:{account}"
        used = {
            (event["verb"], event["objectRef"]["apiGroup"], event["objectRef"]["resource"])
            for event in events(control_plane.audit_log, start)
            if event.get("impersonatedUser", {}).get("username") == name
            and event.get("stage") == "ResponseComplete"
            and event["responseStatus"]["code"] < 400
            and event.get("objectRef", {}).get("resource") != "selfsubjectaccessreviews"
        }
        assert used, account
        for verb, group, resource in used:
            assert any(
                verb in rule["verbs"]
                and group in rule["apiGroups"]
                and resource in rule["resources"]
                for rule in rules[role]
            ), (account, verb, resource)
