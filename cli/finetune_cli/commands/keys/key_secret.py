"""The Secret of the gateway, with one entry for each API key: its hash and its ServiceAccount."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from finetune_api.api_keys import SECRET_NAME, KeyRecord
from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.errors import ApiError
from finetune_cli.cluster.resources import FIELD_MANAGER, JSON, MERGE_PATCH, Query
from finetune_cli.options import completion_target
from finetune_cli.terminal.errors import CommandError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

CREATIONS = 3  # tries, while others create or delete the Secret

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class KeyEntry:
    """An entry of the Secret. record: None if the gateway ignores the entry, with the problem."""

    id: str
    record: KeyRecord | None
    problem: str = ""


class KeySecret:
    """Changes single entries, so that concurrent changes of other entries are kept.

    Every method raises ApiError, UnreachableError, or CommandError.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self.name = name
        self.namespace = cluster.namespace

    def entries(self) -> list[KeyEntry]:
        """The oldest first, and unreadable ones last. Without the Secret, there are none."""
        try:
            found = self._request("GET", self.name)
        except ApiError as error:
            if error.is_missing:
                return []
            raise
        entries = [_parse(str(name), value) for name, value in (found.get("data") or {}).items()]
        return sorted(entries, key=_order)

    def add(self, record: KeyRecord) -> None:
        """Add the entry of a new key, and create the Secret if it does not exist."""
        value = base64.b64encode(record.to_json().encode()).decode()
        data = {record.entry_name: value}
        for _ in range(CREATIONS):
            try:
                self._patch(data)
                return
            except ApiError as error:
                if not error.is_missing:
                    raise
            try:
                self._create(data)
                return
            except ApiError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
        raise CommandError(
            f"Secret {self.name!r} in namespace {self.namespace!r} is created and deleted by "
            "others at the same time",
            "try again",
        )

    def remove(self, ids: Iterable[str]) -> None:
        """Remove entries. One that does not exist is no error."""
        try:
            self._patch(dict.fromkeys(ids))
        except ApiError as error:
            if not error.is_missing:
                raise

    def _patch(self, data: dict[str, Any]) -> None:
        query = {"fieldManager": FIELD_MANAGER}
        self._request("PATCH", self.name, {"data": data}, MERGE_PATCH, query)

    def _create(self, data: dict[str, str]) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "type": "Opaque",
            "data": data,
        }
        self._request("POST", "", manifest, JSON, {"fieldManager": FIELD_MANAGER})

    def _request(
        self,
        method: str,
        name: str,
        body: JsonObject | None = None,
        content_type: str = JSON,
        query: Query | None = None,
    ) -> JsonObject:
        path = f"/api/v1/namespaces/{quote(self.namespace, safe='')}/secrets"
        path += f"/{quote(name, safe='')}" if name else ""
        try:
            found: JsonObject = self._cluster.request(
                method, path, query=query, body=body, content_type=content_type
            )
        except ApiError as error:
            if error.status == HTTPStatus.FORBIDDEN and error.answer:
                raise CommandError(
                    str(error.answer.get("message") or error.message),
                    "API keys require permission to get, create, and patch Secrets in namespace "
                    f"{self.namespace!r}: ask an administrator of the namespace",
                ) from error
            raise
        return found


def secret_option(function: Function) -> Function:
    """Add --secret, passed as `secret`."""
    option = click.option(
        "--secret",
        default=SECRET_NAME,
        show_default=True,
        metavar="NAME",
        help="Secret with the hashes of the keys (chart value gateway.keys.secretName).",
    )
    return option(function)


def complete_ids(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Ids of keys for shell completion; none if the cluster does not respond."""
    from click.shell_completion import CompletionItem

    try:
        cluster = connect(completion_target(ctx), timeout=2)
        entries = KeySecret(cluster, ctx.params.get("secret") or SECRET_NAME).entries()
    except CommandError:
        return []
    return [
        CompletionItem(sanitize(entry.id), help=entry.record.account if entry.record else "")
        for entry in entries
        if entry.id.startswith(incomplete)
    ]


def _parse(name: str, value: object) -> KeyEntry:
    try:
        text = base64.b64decode(str(value), validate=True)
        return KeyEntry(name, KeyRecord.parse(name, text))
    except (binascii.Error, ValueError) as error:
        problem = "not base64" if isinstance(error, binascii.Error) else str(error)
        return KeyEntry(name, None, problem)


def _order(entry: KeyEntry) -> tuple[bool, str, str]:
    created = entry.record.created.isoformat() if entry.record else ""
    return entry.record is None, created, entry.id
