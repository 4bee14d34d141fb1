"""Which server answers for a model.

The first of these: the Service that the Model names, the one that the operator creates for it, the
backend of its base model, and the completion server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from finetune_api.finetune_spec import DNS_LABEL
from finetune_api.model import Model, Serving
from finetune_api.serving import PORT_COMPLETIONS, ServingState, serving_name
from finetune_gateway.backends.published_model import headers_of
from finetune_gateway.settings import Backend, CompletionServer, Settings
from finetune_gateway.wire.completions.answers import not_served

# Fields of requests that the completion server implements, and others may not.
SERVER_SUPPORTS = frozenset({"best_of"})
SERVER_ENGINE = "finetune"  # as status.serving names it


@dataclass(frozen=True)
class Served:
    """A model that the operator serves, as its Model was when it was read."""

    lease: str  # name of the Lease with the time of the last use, whose renewal wakes the model
    state: ServingState | None = None  # None: the operator has not written it yet
    message: str = ""  # cause of the state, in one sentence

    @property
    def has_failed(self) -> bool:
        return self.state == "failed"


@dataclass(frozen=True)
class Target:
    """A server, and the name of the model there."""

    url: str  # without a slash at the end; the endpoints are below it
    model: str
    shown: str  # how messages call it
    is_trusted: bool  # an administrator has named it
    supports: frozenset[str] = frozenset()  # optional fields of requests
    key_file: Path | None = None
    headers: tuple[tuple[str, str], ...] = ()  # which tell the server where the model is
    served: Served | None = None  # None: its server does not sleep


def model_target(model: Model, settings: Settings) -> Target:
    """The server of a fine-tuned model. Raises Problem if there is none."""
    spec = model.spec
    if spec.serving is not None:
        return _service(spec.serving, spec.id, settings.namespace)
    if spec.serve is not None and settings.serves_models:
        return _of_operator(model, settings.namespace)
    backend = _backend(spec.base, settings)
    if backend is not None:
        return _of_backend(backend, spec.id)
    if settings.server is not None:
        return _of_server(settings.server, spec.id, headers_of(model, settings))
    raise not_served(f"No server answers for the model '{spec.id}'. {_remedies(model, settings)}")


def _remedies(model: Model, settings: Settings) -> str:
    others = (
        f"set spec.serving of the Model {model.metadata.name} to a Service, or add a backend for "
        f"the base model '{model.spec.base}' to the chart value gateway.backends, or set "
        "gateway.server.enabled."
    )
    if settings.serves_models:
        return f"Set spec.serve of the Model, or {others}"
    if model.spec.serve is not None:
        return f"Its spec.serve needs the chart value serving.enabled. Set that value, or {others}"
    return f"{others[:1].upper()}{others[1:]}"


def base_target(base: str, settings: Settings) -> Target:
    """The server of a model of the catalog. Raises Problem."""
    backend = _backend(base, settings)
    if backend is not None:
        return _of_backend(backend, backend.name or base)
    if settings.server is not None and base in settings.server.base_models:
        return _of_server(settings.server, base, ())
    raise not_served(
        f"No server answers for the base model '{base}'. Add a backend for it to the chart "
        "value gateway.backends."
    )


def _service(serving: Serving, model: str, namespace: str) -> Target:
    """A Service of the namespace, and of no other: the name of the host has this form only."""
    host = f"{serving.service}.{namespace}.svc"
    return Target(
        url=f"http://{host}:{serving.port}/v1",
        model=serving.name or model,
        shown=f"The Service {host}:{serving.port}",
        is_trusted=False,
    )


def _of_operator(model: Model, namespace: str) -> Target:
    """The Service that the operator creates. It is in the reach of users, and thus not trusted."""
    name, status = serving_name(model.metadata.name, model.metadata.uid), model.status.serving
    if re.fullmatch(DNS_LABEL, name) is None:
        raise not_served(f"The Model of '{model.spec.id}' has a name that no Service can have.")
    host = f"{name}.{namespace}.svc"
    is_own = status is not None and status.engine == SERVER_ENGINE
    return Target(
        url=f"http://{host}:{PORT_COMPLETIONS}/v1",
        model=model.spec.id,
        shown=f"The Service {host}:{PORT_COMPLETIONS}",
        is_trusted=False,
        supports=SERVER_SUPPORTS if is_own else frozenset(),
        served=Served(name) if status is None else Served(name, status.state, status.message),
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


def _of_server(
    server: CompletionServer, model: str, headers: tuple[tuple[str, str], ...]
) -> Target:
    return Target(
        url=server.url.rstrip("/"),
        model=model,
        shown="The completion server",
        is_trusted=True,
        supports=SERVER_SUPPORTS,
        key_file=server.secret_file,
        headers=headers,
    )


def _backend(base: str, settings: Settings) -> Backend | None:
    return next((backend for backend in settings.backends if backend.base == base), None)
