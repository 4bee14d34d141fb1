"""A cluster in memory: FineTunes and Models behind the gateway's `Cluster` protocol.

It refuses what an API server refuses, in the same form: invalid specs, unknown fields, names that
are taken, and, for each verb, what a test wants.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ValidationError

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.model import ModelSpec
from finetune_api.names import API_VERSION
from finetune_api.unknown_fields import find_unknown_fields
from finetune_api.wire import JsonObject
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.cluster import Plural, Verb
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.wire.creation import merge

START = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
SPECS: dict[Plural, type[BaseModel]] = {"finetunes": FineTuneSpec, "models": ModelSpec}
KINDS: dict[Plural, str] = {"finetunes": "FineTune", "models": "Model"}


class MemoryCluster:
    """The objects of one namespace, which the tests can reach into."""

    def __init__(self, namespace: str = "ml", now: datetime | None = None) -> None:
        """now: the creation time of the first object, each next one is a second later.

        Without it, objects have the time at which they are created.
        """
        self.namespace = namespace
        self.objects: dict[Plural, dict[str, JsonObject]] = {"finetunes": {}, "models": {}}
        self.refusals: dict[tuple[Verb, Plural], KubeError] = {}
        self.requests: list[tuple[Verb, Plural]] = []  # what has been asked, in its order
        self.callers: list[Caller] = []
        self._now = now
        self._version = 0
        self._changes = asyncio.Condition()

    def refuse(self, verb: Verb, plural: Plural, error: KubeError | None = None) -> None:
        """Refuse each such request; without `error`, as RBAC does."""
        message = (
            f'{plural}.finetune.dev is forbidden: User "system:serviceaccount:{self.namespace}:'
            f'bert" cannot {verb} resource "{plural}" in API group "finetune.dev" in the namespace '
            f'"{self.namespace}"'
        )
        self.refusals[verb, plural] = error or KubeError(403, message, reason="Forbidden")

    async def get(self, caller: Caller, plural: Plural, name: str) -> JsonObject:
        await self._ask(caller, "get", plural)
        return deepcopy(self._find(plural, name))

    async def list(
        self, caller: Caller, plural: Plural, *, label_selector: str = ""
    ) -> list[JsonObject]:
        """label_selector: one label and its value."""
        await self._ask(caller, "list", plural)
        found = list(self.objects[plural].values())
        if label_selector:
            key, value = label_selector.split("=")
            found = [obj for obj in found if obj["metadata"].get("labels", {}).get(key) == value]
        return deepcopy(found)

    async def list_metadata(self, caller: Caller, plural: Plural) -> Sequence[JsonObject]:
        found = await self.list(caller, plural)
        return [{"metadata": obj["metadata"]} for obj in found]

    async def create(self, caller: Caller, plural: Plural, body: JsonObject) -> JsonObject:
        await self._ask(caller, "create", plural)
        made = self._validated(plural, body)
        name = made["metadata"]["name"]
        if name in self.objects[plural]:
            message = f'{plural}.finetune.dev "{name}" already exists'
            raise KubeError(409, message, reason="AlreadyExists")
        await self._store(plural, made)
        return deepcopy(made)

    async def patch(
        self, caller: Caller, plural: Plural, name: str, body: JsonObject
    ) -> JsonObject:
        await self._ask(caller, "patch", plural)
        found = merge(self._find(plural, name), body)
        await self._store(plural, found)
        return deepcopy(found)

    async def delete(self, caller: Caller, plural: Plural, name: str) -> None:
        await self._ask(caller, "delete", plural)
        self._find(plural, name)
        del self.objects[plural][name]
        async with self._changes:
            self._changes.notify_all()

    async def follow(
        self, caller: Caller, plural: Plural, name: str
    ) -> AsyncGenerator[JsonObject | None]:
        await self._ask(caller, "watch", plural)
        self._find(plural, name)
        version = ""
        while (found := self.objects[plural].get(name)) is not None:
            if found["metadata"]["resourceVersion"] != version:
                version = found["metadata"]["resourceVersion"]
                yield deepcopy(found)
                continue  # the object may have changed since
            async with self._changes:
                await self._changes.wait()
        yield None

    async def may(self, caller: Caller, verb: Verb, plural: Plural) -> bool:
        self.callers.append(caller)
        """Rights only: a quota and a policy refuse the request itself."""
        error = self.refusals.get((verb, plural))
        if error is not None and error.status == 401:
            raise error
        return error is None or " cannot " not in error.message

    async def is_ready(self) -> bool:
        return True

    # What tests do in place of kubectl and of the operator.

    async def add(self, plural: Plural, name: str, spec: JsonObject, **more: Any) -> JsonObject:
        """Add an object. more: labels and annotations, and `status`."""
        status = more.pop("status", None)
        body = {"metadata": {"name": name, **more}, "spec": spec}
        made = self._validated(plural, body)
        if status is not None:
            made["status"] = status
        await self._store(plural, made)
        return made

    async def set_status(self, name: str, **status: Any) -> None:
        """Change fields of a FineTune's status."""
        found = self._find("finetunes", name)
        await self._store("finetunes", {**found, "status": found.get("status", {}) | status})

    def spec_of(self, name: str) -> JsonObject:
        spec: JsonObject = self.objects["finetunes"][name]["spec"]
        return spec

    async def _ask(self, caller: Caller, verb: Verb, plural: Plural) -> None:
        self.requests.append((verb, plural))
        self.callers.append(caller)
        await asyncio.sleep(0)  # other requests come in between
        if (verb, plural) in self.refusals:
            raise self.refusals[verb, plural]

    def _find(self, plural: Plural, name: str) -> JsonObject:
        found = self.objects[plural].get(name)
        if found is None:
            message = f'{plural}.finetune.dev "{name}" not found'
            raise KubeError(404, message, reason="NotFound")
        return found

    def _validated(self, plural: Plural, body: JsonObject) -> JsonObject:
        spec, kind = body["spec"], SPECS[plural]
        unknown = next(find_unknown_fields(spec, kind, "spec"), None)
        if unknown is not None:
            message = (
                f'{KINDS[plural]} in version "v1alpha1" cannot be handled as a {KINDS[plural]}: '
                f'strict decoding error: unknown field "{unknown.path}.{unknown.key}"'
            )
            raise KubeError(400, message, reason="BadRequest")
        try:
            parsed = kind.model_validate(spec, strict=True)
        except ValidationError as error:
            raise _invalid(KINDS[plural], body["metadata"]["name"], error) from error
        number = self._version + 1
        now = datetime.now(UTC) if self._now is None else self._now + timedelta(seconds=number)
        metadata = {
            **deepcopy(body["metadata"]),
            "namespace": self.namespace,
            "uid": f"00000000-0000-4000-8000-{number:012}",
            "creationTimestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "generation": 1,
        }
        return {
            "apiVersion": API_VERSION,
            "kind": KINDS[plural],
            "metadata": metadata,
            "spec": parsed.model_dump(mode="json", by_alias=True, exclude_none=True),
        }

    async def _store(self, plural: Plural, obj: JsonObject) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[plural][obj["metadata"]["name"]] = obj
        async with self._changes:
            self._changes.notify_all()


def _invalid(kind: str, name: str, error: ValidationError) -> KubeError:
    causes = tuple(_cause(dict(item)) for item in error.errors(include_url=False))
    listed = ", ".join(f"{field}: {message}" for field, message in causes)
    message = f'{kind}.finetune.dev "{name}" is invalid: [{listed}]'
    return KubeError(422, message, reason="Invalid", causes=causes)


def _cause(item: dict[str, Any]) -> tuple[str, str]:
    """A pydantic error as the API server words it."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]]
    field = f"spec{''.join(parts)}"
    value, context = item["input"], item.get("ctx", {})
    shown = json.dumps(value)
    match item["type"]:
        case "missing":
            return field, "Required value"
        case "greater_than_equal":
            rule = f"should be greater than or equal to {context['ge']}"
        case "less_than_equal":
            rule = f"should be less than or equal to {context['le']}"
        case "string_too_long":
            return field, f"Too long: may not be more than {context['max_length']} bytes"
        case "string_pattern_mismatch":
            rule = f"should match '{context['pattern']}'"
        case "literal_error":
            values = context["expected"].replace("'", '"').replace(" or ", ", ")
            return field, f"Unsupported value: {shown}: supported values: {values}"
        case "int_type" | "float_type" | "bool_type" | "string_type" | "dict_type" | "list_type":
            wanted = {"int": "integer", "float": "number", "bool": "boolean"}
            name = item["type"].removesuffix("_type")
            found = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}
            given = found.get(type(value), "number")
            expected = wanted.get(name, name)
            return (
                field,
                f'Invalid value: "{given}": {field} in body must be of type {expected}: "{given}"',
            )
        case "value_error":  # a rule across fields
            return "<nil>", f'Invalid value: "object": {context["error"]}'
        case _:
            rule = item["msg"]
    return field, f"Invalid value: {shown}: {field} in body {rule}"
