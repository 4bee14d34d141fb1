"""An API server with Models: reads, lists, and merge patches over HTTP, and a script of statuses.

The test plays the operator: after the first patch, each read of a Model returns the next step.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from finetune_api.wire import JsonObject

ID = "ada:ft-acme:tone-2026-11-21-12-00-00"
UID = "0a1b2c3d-2222-3333-4444-555555555555"
SERVER = "mdl-tone-0a1b2c3d-serve"  # of the Model `tone` with this UID
MODELS = "/apis/finetune.dev/v1alpha1/namespaces/ml/models"
DELETED = "deleted"  # a step after which there is no such Model
BUSY = "busy"  # a step that answers 503


def a_model(name: str = "tone", model_id: str = ID, **more: Any) -> JsonObject:
    """more: fields of the spec; `status` is the status."""
    status = more.pop("status", {})
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "Model",
        "metadata": {
            "name": name,
            "namespace": "ml",
            "uid": UID,
            "resourceVersion": "1",
            "creationTimestamp": "2026-11-21T12:00:00Z",
        },
        "spec": {
            "id": model_id,
            "uri": "s3://acme/out/ml/tone-0a1b2c3d/model",
            "base": "ada",
            "pretrainingLearningRate": 0.001,
            "contextLength": 256,
            **more,
        },
        "status": status,
    }


SERVED = {"replicas": 1, "idleSeconds": 900}  # a spec.serve with the defaults of the CRD


def serving(state: str, message: str, **more: Any) -> JsonObject:
    """A status.serving as the operator writes it."""
    since = {"since": "2026-11-30T12:00:00Z", "reason": state.capitalize()}
    found = {"state": state, "message": message, "service": SERVER, "replicas": 1, **since}
    return {**found, "runtime": "small", "engine": "finetune", "readyReplicas": 0, **more}


LOADING = serving("loading", "1 pod is loading the model")
READY = serving("ready", "1 of 1 pod answers requests", readyReplicas=1)
ASLEEP = serving("asleep", "no request came for 15 minutes; the next one wakes it", replicas=0)
CRASHED = "the server ended with exit code 1: no GPU; Kubernetes tries again until it works"
FAILED = serving("failed", CRASHED, log=["loading weights", "no GPU"])
UNKNOWN = serving("failed", "runtime 'big' is unknown; set it to small", replicas=0)


def lines(text: str) -> list[str]:
    """The lines of an output without the blanks at their ends."""
    return [line.rstrip() for line in text.splitlines()]


class ModelsApi:
    """The Models by name, the patches that arrived, and what the next requests return."""

    def __init__(self, *models: JsonObject) -> None:
        self.models = {item["metadata"]["name"]: item for item in models}
        self.patches: list[JsonObject] = []
        self.reads = 0  # of single Models after the first patch or `plays`
        self.steps: list[Any] = []  # status.serving (None: without), DELETED, or BUSY
        self.plays = False  # whether a read takes a step even without a patch
        self.refusal: tuple[int, JsonObject] | None = None  # of patches
        self.prunes = False  # whether the CRD is of a release without spec.serve

    def read(self, name: str) -> tuple[int, JsonObject]:
        if name in self.models and (self.patches or self.plays):
            self.reads += 1
            if self._step(name) == BUSY:
                return 503, _status(503, "try again")
        if name not in self.models:
            return 404, _status(404, f'models.finetune.dev "{name}" not found')
        return 200, self.models[name]

    def patch(self, name: str, body: JsonObject) -> tuple[int, JsonObject]:
        self.patches.append(body)
        if self.refusal is not None:
            return self.refusal
        spec = merged(self.models[name]["spec"], body["spec"])
        if self.prunes:
            spec.pop("serve", None)
        if spec.get("serve") is not None:  # as the CRD's defaults
            spec["serve"] = {**SERVED, **spec["serve"]}
        self.models[name]["spec"] = spec
        return 200, self.models[name]

    def _step(self, name: str) -> Any:
        step = self.steps.pop(0) if len(self.steps) > 1 else (self.steps or [BUSY])[0]
        if step == DELETED:
            del self.models[name]
        elif step != BUSY:
            self.models[name]["status"] = {} if step is None else {"serving": step}
        return step


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def _status(code: int, message: str) -> JsonObject:
    return {"kind": "Status", "code": code, "message": message, "details": {"kind": "models"}}


@contextmanager
def served_models(api: ModelsApi, kubeconfig: Path) -> Iterator[None]:
    """Serve the Models, and write a kubeconfig whose context has the namespace ml."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == MODELS:
                items = {"items": [*api.models.values()], "metadata": {}, "kind": "ModelList"}
                self._send(200, items)
            else:
                self._send(*api.read(path.rpartition("/")[2]))

        def do_PATCH(self) -> None:
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(*api.patch(urlsplit(self.path).path.rpartition("/")[2], body))

        def _send(self, code: int, answer: JsonObject) -> None:
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "ml"}}
        ],
        "users": [{"name": "me", "user": {"token": "x"}}],
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
