"""Which server answers for a model: the Model's own Service, or the backend of its base model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from finetune_api.wire import JsonObject, Stored
from finetune_gateway.problems import Problem
from finetune_gateway.settings import Backend, Settings
from finetune_gateway.wire.completions.answers import not_served

SERVICE = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"  # the name of a Service: a DNS label


@dataclass(frozen=True)
class Target:
    """A server, and the name of the model there."""

    url: str  # without a slash at the end; the endpoints are below it
    model: str
    shown: str  # how messages call it
    is_trusted: bool  # an administrator has named it
    supports: frozenset[str] = frozenset()  # optional fields of requests
    key_file: Path | None = None


class Serving(Stored):
    """The Service in the namespace of a Model that answers for it."""

    service: str = Field(pattern=SERVICE)
    port: int = Field(ge=1, le=65535)
    name: str | None = Field(None, min_length=1, max_length=256)  # of the model there


class _Spec(Stored):
    id: str
    base: str
    serving: JsonObject | None = None


class _Model(Stored):
    spec: _Spec


def model_target(obj: JsonObject, model: str, settings: Settings) -> Target | None:
    """The server of a Model; None if it is not the Model with the id `model`.

    Raises Problem if no server answers for it. Different ids can have the same resource name.
    """
    try:
        spec = _Model.model_validate({"spec": obj.get("spec")}).spec
    except ValidationError:
        return None
    if spec.id != model:
        return None
    if spec.serving is not None:
        return _service(spec.serving, model, settings.namespace)
    backend = _backend(spec.base, settings)
    if backend is None:
        raise not_served(
            f"No server answers for the model '{model}'. Set spec.serving of its Model to a "
            f"Service, or add a backend for the base model '{spec.base}' to the chart value "
            "gateway.backends."
        )
    return _of_backend(backend, model)


def base_target(base: str, settings: Settings) -> Target:
    """The server of a model of the catalog. Raises Problem."""
    backend = _backend(base, settings)
    if backend is None:
        raise not_served(
            f"No server answers for the base model '{base}'. Add a backend for it to the chart "
            "value gateway.backends."
        )
    return _of_backend(backend, backend.name or base)


def _service(serving: JsonObject, model: str, namespace: str) -> Target:
    try:
        found = Serving.model_validate(serving)
    except ValidationError as error:
        raise _invalid_serving(model) from error
    host = f"{found.service}.{namespace}.svc"
    return Target(
        url=f"http://{host}:{found.port}/v1",
        model=found.name or model,
        shown=f"The Service {host}:{found.port}",
        is_trusted=False,
    )


def _invalid_serving(model: str) -> Problem:
    return not_served(
        f"spec.serving of the Model of '{model}' is invalid. Set service to the name of a Service "
        "in the same namespace, and port to a number from 1 to 65535."
    )


def _of_backend(backend: Backend, model: str) -> Target:
    return Target(
        url=backend.url.rstrip("/"),
        model=model,
        shown=f"The backend of {backend.base}",
        is_trusted=True,
        supports=frozenset(backend.supports),
        key_file=backend.key_file,
    )


def _backend(base: str, settings: Settings) -> Backend | None:
    return next((backend for backend in settings.backends if backend.base == base), None)
