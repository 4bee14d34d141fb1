"""The ServiceAccount of a key: whether it may have one, and whether the key will work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.errors import ApiError
from finetune_cli.cluster.resources import Query
from finetune_cli.options import completion_target
from finetune_cli.terminal.errors import CommandError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

NAME_CHARACTERS = 253
LABEL_PART_OF, PART_OF = "app.kubernetes.io/part-of", "finetune-operator"  # of the chart
DEFAULT = "default"  # the account of every pod that names none
VALUE = "gateway.keys.serviceAccounts"
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def account_name(_: click.Context, __: click.Parameter, name: str) -> str:
    """The name. Raises click.BadParameter if no ServiceAccount can have it."""
    if len(name) > NAME_CHARACTERS or _NAME.fullmatch(name) is None:
        raise click.BadParameter(
            f"{name!r:.80} is not the name of a ServiceAccount: expected lowercase letters, "
            "digits, and dashes, such as bert"
        )
    return name


def check_account(cluster: Cluster, name: str) -> list[str]:
    """What prevents a key of the account from working now, in sentences.

    Raise CommandError for an account that must not have a key.
    """
    if name == DEFAULT:
        raise _not_for_users(cluster, name, "every pod that names no account")
    found = _get_if_permitted(cluster, f"{_base(cluster)}/serviceaccounts/{name}")
    labels = ((found or {}).get("metadata") or {}).get("labels") or {}
    if labels.get(LABEL_PART_OF) == PART_OF:
        raise _not_for_users(cluster, name, "the chart: the operator, the gateway, or its pods")
    return [*_missing_account(cluster, name, found), *_missing_role(cluster, name)]


def complete_accounts(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """ServiceAccounts for shell completion; none if the cluster does not respond."""
    from click.shell_completion import CompletionItem

    try:
        cluster = connect(completion_target(ctx), timeout=2)
        found = cluster.request("GET", f"{_base(cluster)}/serviceaccounts", query={"limit": 500})
    except CommandError:
        return []
    metas = [item["metadata"] for item in found.get("items", [])]
    return [
        CompletionItem(sanitize(meta["name"]))
        for meta in metas
        if meta["name"].startswith(incomplete)
        and meta["name"] != DEFAULT
        and (meta.get("labels") or {}).get(LABEL_PART_OF) != PART_OF
    ]


def _missing_account(cluster: Cluster, name: str, found: JsonObject | None) -> Iterator[str]:
    if found == {}:
        yield (
            f"there is no ServiceAccount {name!r} in namespace {cluster.namespace!r}, and no one "
            f"can use the key before it exists: kubectl create serviceaccount {name} "
            f"-n {cluster.namespace}"
        )


def _missing_role(cluster: Cluster, name: str) -> Iterator[str]:
    """Whether no Role of the chart lets the gateway act as the account."""
    namespace = quote(cluster.namespace, safe="")
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"
    roles = _get_if_permitted(cluster, path, {"labelSelector": f"{LABEL_PART_OF}={PART_OF}"})
    if roles is None:
        return
    rules = [rule for role in roles.get("items", []) for rule in role.get("rules") or []]
    if not any(_allows_impersonation(rule, name) for rule in rules):
        yield (
            f"no Role of a gateway in namespace {cluster.namespace!r} names the ServiceAccount "
            f"{name!r}, so the gateway refuses the key: add the account to the chart value {VALUE}"
        )


def _allows_impersonation(rule: JsonObject, account: str) -> bool:
    return (
        bool({"impersonate", "*"} & set(rule.get("verbs") or []))
        and bool({"serviceaccounts", "*"} & set(rule.get("resources") or []))
        and (not rule.get("resourceNames") or account in rule["resourceNames"])
    )


def _not_for_users(cluster: Cluster, name: str, owner: str) -> CommandError:
    return CommandError(
        f"ServiceAccount {name!r} is that of {owner}, and an API key would have all its "
        "permissions",
        f"create one for the user: kubectl create serviceaccount NAME -n {cluster.namespace}",
    )


def _get_if_permitted(cluster: Cluster, path: str, query: Query | None = None) -> JsonObject | None:
    """{}: there is no such object. None: this login may not read it."""
    try:
        found: JsonObject = cluster.request("GET", path, query=query)
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return {}
        if error.status == HTTPStatus.FORBIDDEN and error.answer:
            return None
        raise
    return found


def _base(cluster: Cluster) -> str:
    return f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}"
