"""`finetune keys` with a real API server: the Secret, rights, and concurrent changes."""

from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.api_keys import SECRET_NAME, KeyRecord, entry_name, hash_key, is_key, new_key
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.keys.accounts import LABEL_PART_OF, PART_OF
from finetune_cli.commands.keys.key_secret import KeySecret
from tests.cli.conftest import Run
from tests.support.kubectl import Kubectl, RefusedError

pytestmark = pytest.mark.integration

RBAC = "rbac.authorization.k8s.io"


def account(name: str, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}


def gateway_role(*accounts: str) -> dict[str, Any]:
    """The Role that the chart gives the gateway."""
    rule = {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": "gateway", "labels": {LABEL_PART_OF: PART_OF}},
        "rules": [{**rule, "resourceNames": list(accounts)}],
    }


def records(team: Kubectl, secret: str = SECRET_NAME) -> dict[str, KeyRecord]:
    """The entries of the Secret, as the gateway parses them."""
    data = team.get("secret", secret).get("data") or {}
    return {
        name: KeyRecord.parse(name, base64.b64decode(value, validate=True))
        for name, value in data.items()
    }


def keys_of(team: Kubectl) -> KeySecret:
    return KeySecret(connect(ClusterTarget(team.kubeconfig, None, team.namespace)), SECRET_NAME)


def a_record(account: str = "bert", **changes: Any) -> KeyRecord:
    fields = {"sha256": hash_key(new_key()), "account": account, "created": datetime.now(UTC)}
    return KeyRecord.model_validate(fields | changes)


def test_a_key_is_printed_once_and_only_its_hash_is_stored(at_team: Run, team: Kubectl) -> None:
    team.apply(account("bert"), gateway_role("anna", "bert"))
    made = at_team("keys", "create", "--for", "bert", "--expires", "90d", "--note", "a laptop")
    assert made.returncode == 0, made.stderr
    key = made.stdout.removesuffix("\n")
    assert is_key(key)
    assert key not in made.stderr
    assert "warning" not in made.stderr
    for words in ("shown only once", "export OPENAI_API_KEY=", "export OPENAI_BASE_URL="):
        assert words in made.stderr
    found = records(team)[entry_name(hash_key(key))]
    assert (found.sha256, found.account, found.note) == (hash_key(key), "bert", "a laptop")
    assert found.expires is not None
    assert found.expires - found.created == timedelta(days=90)
    assert abs(datetime.now(UTC) - found.created) < timedelta(minutes=5)
    assert key not in team("get", "secret", SECRET_NAME, "-o", "yaml")

    again = at_team("keys", "create", "--for", "bert")
    assert len(records(team)) == 2
    assert records(team)[entry_name(hash_key(again.stdout.strip()))].expires is None


def test_keys_are_listed_without_their_hashes(at_team: Run, team: Kubectl) -> None:
    assert "No API keys found in Secret 'finetune-gateway-keys'" in at_team("keys", "list").stderr
    assert json.loads(at_team("keys", "list", "-o", "json").stdout) == []
    now = datetime.now(UTC)
    old = a_record(created=now - timedelta(days=2), expires=now - timedelta(days=1), note="old")
    new = a_record("anna", expires=now + timedelta(days=1))
    for record in (new, old):
        keys_of(team).add(record)
    table = at_team("keys", "list").stdout
    header, first, second = table.splitlines()
    assert header.split() == ["ID", "ACCOUNT", "CREATED", "EXPIRES", "NOTE"]
    assert first.split()[:2] == [old.entry_name, "bert"]
    assert first.endswith("(expired)   old")
    assert second.split()[:2] == [new.entry_name, "anna"]
    assert "expired" not in second
    text = at_team("keys", "list", "-o", "json").stdout
    found = json.loads(text)
    assert [(it["id"], it["account"], it["expired"]) for it in found] == [
        (old.entry_name, "bert", True),
        (new.entry_name, "anna", False),
    ]
    for shown in (table, text):
        assert not re.search(r"[0-9a-f]{17}", shown)


def test_a_key_is_revoked_by_its_id_or_by_itself(at_team: Run, team: Kubectl) -> None:
    keys = [at_team("keys", "create", "--for", "bert").stdout.strip() for _ in range(4)]
    ids = [entry_name(hash_key(key)) for key in keys]
    ran = at_team("keys", "revoke", ids[0])
    assert ran.stdout == f"Revoked key {ids[0]} of ServiceAccount 'bert'.\n"
    assert "usually within 60 seconds" in ran.stderr
    assert at_team("keys", "revoke", "-", stdin=f"{keys[1]}\n").returncode == 0
    assert set(records(team)) == {ids[2], ids[3]}

    mixed = at_team("keys", "revoke", ids[0], keys[2], "nothing")
    assert mixed.returncode == 1
    assert set(records(team)) == {ids[3]}
    assert f"has no key '{ids[0]}', 'nothing'" in mixed.stderr
    for key in keys:
        assert key not in mixed.stderr + mixed.stdout

    unknown = at_team("keys", "revoke", "-", stdin=new_key())
    assert unknown.returncode == 1
    assert set(records(team)) == {ids[3]}


def test_concurrent_changes_lose_nothing(team: Kubectl) -> None:
    """From a namespace without the Secret: only one of them can create it."""
    made = [a_record(f"user-{number}") for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda record: keys_of(team).add(record), made))
        assert records(team) == {record.entry_name: record for record in made}
        new = [a_record() for _ in range(6)]

        def change(number: int) -> None:
            keys = keys_of(team)
            keys.remove([made[number].entry_name])
            keys.add(new[number])

        list(pool.map(change, range(6)))
    assert records(team) == {record.entry_name: record for record in (*made[6:], *new)}


def test_other_entries_labels_and_secrets_are_left_alone(at_team: Run, team: Kubectl) -> None:
    team("create", "secret", "generic", "other", "--from-literal=README=by hand")
    team("label", "secret", "other", "owner=anna")
    created = at_team("keys", "create", "--for", "bert", "--secret", "other").stdout.strip()
    key_id = entry_name(hash_key(created))
    found = team.get("secret", "other")
    assert set(found["data"]) == {"README", key_id}
    assert found["metadata"]["labels"] == {"owner": "anna"}
    listed = at_team("keys", "list", "--secret", "other")
    assert "README" in listed.stdout
    assert "unreadable: " in listed.stdout
    assert "by hand" not in listed.stdout
    assert "The gateway ignores 1 unreadable entry" in listed.stderr
    assert (
        "Revoked key README (unreadable)"
        in at_team("keys", "revoke", "README", key_id, "--secret", "other").stdout
    )
    assert "data" not in team.get("secret", "other")
    with pytest.raises(RefusedError, match="NotFound"):
        team.get("secret", SECRET_NAME)


@pytest.mark.parametrize("name", ["finetune-operator", "finetune-operator-gateway", "finetune"])
def test_no_key_is_for_an_account_of_the_chart(at_team: Run, team: Kubectl, name: str) -> None:
    team.apply(account(name, **{LABEL_PART_OF: PART_OF, "app.kubernetes.io/managed-by": "Helm"}))
    ran = at_team("keys", "create", "--for", name)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"ServiceAccount '{name}' is that of the chart" in ran.stderr
    assert "kubectl create serviceaccount NAME" in ran.stderr
    assert team.list("secrets") == []


def test_no_key_is_for_the_account_of_all_pods(at_team: Run, team: Kubectl) -> None:
    ran = at_team("keys", "create", "--for", "default")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "that of every pod that names no account" in ran.stderr
    assert team.list("secrets") == []


def test_what_the_key_still_lacks_is_a_warning(at_team: Run, team: Kubectl) -> None:
    ran = at_team("keys", "create", "--for", "bert")
    assert is_key(ran.stdout.strip())
    assert f"kubectl create serviceaccount bert -n {team.namespace}" in ran.stderr
    assert "add the account to the chart value gateway.keys.serviceAccounts" in ran.stderr
    team.apply(account("bert"), gateway_role("anna"))
    ran = at_team("keys", "create", "--for", "bert")
    assert "kubectl create serviceaccount" not in ran.stderr
    assert "no Role of a gateway" in ran.stderr
    team.apply(gateway_role("anna", "bert"))
    assert "warning" not in at_team("keys", "create", "--for", "bert").stderr


def test_a_namespace_that_does_not_exist_is_named(run: Run, at_team: Run) -> None:
    ran = run("-n", "nowhere", "keys", "create", "--for", "bert")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "there is no namespace 'nowhere'" in ran.stderr


def test_the_rights_on_secrets_suffice_and_their_absence_is_explained(
    at_team: Run, team: Kubectl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(Path(team.kubeconfig).read_text())
    team.apply(account("keeper"))
    token = team("create", "token", "keeper").strip()
    config["users"] = [{"name": "keeper", "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"]["user"] = "keeper"
    (home / "keeper").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(home / "keeper"))
    for arguments in (("create", "--for", "bert"), ("list",), ("revoke", "0123456789abcdef")):
        refused = at_team("keys", *arguments)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "cannot" in refused.stderr
        assert 'resource "secrets"' in refused.stderr
        assert "permission to get, create, and patch Secrets" in refused.stderr
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "patch"]}
    meta = {"name": "keeper"}
    reference = {"apiGroup": RBAC, "kind": "Role", "name": "keeper"}
    subject = {"kind": "ServiceAccount", "name": "keeper", "namespace": team.namespace}
    team.apply(
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": reference,
            "subjects": [subject],
        },
    )
    made = at_team("keys", "create", "--for", "bert")
    assert made.returncode == 0, made.stderr
    assert "warning" not in made.stderr  # this login may not look
    key_id = entry_name(hash_key(made.stdout.strip()))
    assert key_id in at_team("keys", "list").stdout
    assert at_team("keys", "revoke", key_id).returncode == 0


def test_ids_and_accounts_are_completed(
    at_team: Run, run: Run, team: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = a_record()
    keys_of(team).add(record)
    team.apply(account("bert"), account("anna"), account("operator", **{LABEL_PART_OF: PART_OF}))
    monkeypatch.setenv("_FINETUNE_COMPLETE", "bash_complete")

    def completed(words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        return run().stdout.splitlines()

    flags = f"-n {team.namespace}"
    assert completed(f"finetune {flags} keys revoke {record.entry_name[:3]}") == [
        f"plain,{record.entry_name}"
    ]
    assert completed(f"finetune keys revoke {flags} {record.entry_name[:3]}") == [
        f"plain,{record.entry_name}"
    ]
    assert completed(f"finetune {flags} keys create --for b") == ["plain,bert"]
    assert completed(f"finetune {flags} keys create --for ") == ["plain,anna", "plain,bert"]
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert completed(f"finetune {flags} keys revoke a") == [""]
