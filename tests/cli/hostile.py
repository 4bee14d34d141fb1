"""A cluster whose every text is hostile: an API server without a schema, and its logs and watch."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from finetune_api import names
from finetune_api.api_keys import hash_key
from finetune_api.wire import JsonObject
from tests.cli.statuses import resolved

# A title and a clipboard for the terminal, a concealed text, an 8-bit sequence, reordered and
# invisible text, a forged line, an overwritten one, and markup of rich.
HOSTILE = (
    "begin \x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x1b\\\x1b[8mhidden\x1b[66;6H\x9b31m\x90\x7f\x08\x00"
    "\u202egpj.exe\u2066\u2069\u200e\u200f\u061c\u200b\u2060\ufeff\u2028\u2029\u3164\U000e0041"
    "\nerror: forged line\r\nhint: forged hint\rforged start\x0b\x0c\x85"
    "[link=https://evil.example]click[/link][bold]\\[/] end"
)
TIME, WORD, FIELD = HOSTILE[:60], HOSTILE[:120], HOSTILE[:250]
ADDRESS = "s3://data/" + HOSTILE.replace("\n", "")
UID = "11111111-2222-3333-4444-555555555555"


def metadata(name: str, **more: Any) -> JsonObject:
    return {
        "name": name,
        "namespace": "team",
        "uid": UID,
        "resourceVersion": "7",
        "creationTimestamp": TIME,
        "labels": {names.LABEL_UID: UID, "hostile": HOSTILE},
        "annotations": {"hostile": HOSTILE, HOSTILE: "hostile"},
        **more,
    }


def hostile_finetune(bucket: str, **more: Any) -> JsonObject:
    """A FineTune whose texts are hostile in spec and status."""
    known = resolved(bucket)
    known["base"] = {**known["base"], "name": HOSTILE, "revision": WORD}
    known["runtime"] = {**known["runtime"], "name": TIME}
    error = {"code": WORD, "message": HOSTILE, "param": FIELD, "hint": HOSTILE}
    attempt = {"number": 1, "startedAt": TIME, "reason": WORD, "message": HOSTILE}
    status = {
        "state": "failed",
        "stage": HOSTILE[:32],
        "reason": WORD,
        "message": HOSTILE,
        "startedAt": TIME,
        "finishedAt": TIME,
        "fineTunedModel": HOSTILE,
        "modelUri": HOSTILE,
        "resolved": known,
        "events": [{"at": TIME, "level": "error", "reason": WORD, "message": HOSTILE}],
        "error": {**error, "lines": [HOSTILE], "log": [HOSTILE]},
        "attempts": [{**attempt, "endedAt": TIME, "node": HOSTILE, "log": [HOSTILE]}],
        "conditions": [],
        "progress": {
            "step": 1,
            "steps": 9,
            "percent": HOSTILE[:16],
            "eta": TIME,
            "detail": HOSTILE,
        },
        **more,
    }
    spec = {"model": HOSTILE, "trainingFile": ADDRESS, "validationFile": ADDRESS}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "FineTune",
        "metadata": metadata("tone"),
        "spec": {**spec, "suffix": HOSTILE[:64]},
        "status": status,
    }


def hostile_model(uri: str) -> JsonObject:
    spec = {
        "id": FIELD,
        "uri": uri,
        "base": FIELD,
        "parent": FIELD,
        "manifestSha256": TIME,
        "pretrainingLearningRate": 0.001,
        "contextLength": 256,
        "fineTune": {"name": FIELD, "uid": TIME},
        "serving": {"service": "tone", "port": 8000, "name": FIELD},
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Model",
        "metadata": metadata("tone"),
        "spec": spec,
        "status": {"message": HOSTILE, "state": HOSTILE},
    }


def hostile_serving(state: str) -> JsonObject:
    """A status.serving whose texts are hostile."""
    words = {"reason": WORD, "message": HOSTILE, "log": [HOSTILE, HOSTILE]}
    names_of = {"since": TIME, "runtime": TIME, "engine": TIME, "service": TIME}
    return {"state": state, "replicas": 1, **words, **names_of}


KEY_ID = hash_key("sk-ft-" + "a" * 43)[:16]


def hostile_secret() -> JsonObject:
    """The Secret of API keys: a record with a hostile note, and entries that are none."""
    record = {
        "sha256": hash_key("sk-ft-" + "a" * 43),
        "account": "tone",
        "created": "2026-11-30T04:40:00Z",
        "note": HOSTILE[:200],
    }
    entries = {KEY_ID: record, HOSTILE: HOSTILE, "fedcba9876543210": {**record, HOSTILE: HOSTILE}}
    data = {
        name: base64.b64encode(json.dumps(value).encode()).decode()
        for name, value in entries.items()
    }
    return {"kind": "Secret", "metadata": metadata("keys"), "data": {**data, "0": HOSTILE}}


class HostileCluster:
    """Answers each GET with a hostile object. failing: with a hostile Status instead."""

    def __init__(self, bucket: str) -> None:
        self.finetune = hostile_finetune(bucket)
        self.model = hostile_model(f"s3://{bucket}/model")
        self.failing = 0
        self.has_pods = True
        self.pause = 0.0  # seconds before a watch reports
        self.later: JsonObject | None = None  # what a watch reports; else the same

    def answer(self, path: str) -> Any:
        last = path.rpartition("/")[2]
        kinds = {"finetunes": self.finetune, "models": self.model, "pods": self._pod()}
        if last in kinds:
            items = [] if last == "pods" and not self.has_pods else [kinds[last]]
            return {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}
        if last == "version":
            return {"gitVersion": HOSTILE, "major": "1", "minor": "36"}
        if "/secrets" in path:
            return hostile_secret()
        if "/serviceaccounts" in path:
            return {"metadata": {"name": HOSTILE, "labels": {HOSTILE: HOSTILE}}}
        if last == "roles":
            return {"items": [{"rules": [{"verbs": [HOSTILE], "resources": [HOSTILE]}]}]}
        if "selfsubjectaccessreviews" in path:
            return {"status": {"allowed": True, "reason": HOSTILE}}
        if path == f"/apis/{names.API_VERSION}":
            return {"resources": [{"name": "finetunes"}, {"name": "models"}]}
        plain = {
            "nodes": self._node(),
            "runtimeclasses": {"metadata": {"name": HOSTILE}, "handler": f"nvidia {HOSTILE}"},
            "deployments": {"metadata": metadata(HOSTILE), "status": {}},
            "events": {"involvedObject": {"name": "tone"}, "message": HOSTILE},
        }
        if last in plain:
            return {"items": [plain[last]], "metadata": {}}
        return kinds["models"] if "/models/" in path else kinds["finetunes"]

    def refusal(self) -> JsonObject:
        causes = [{"field": HOSTILE, "message": HOSTILE, "reason": HOSTILE}]
        details = {"name": HOSTILE, "kind": "finetunes", "causes": causes}
        return {"kind": "Status", "message": HOSTILE, "reason": HOSTILE, "details": details}

    def _pod(self) -> JsonObject:
        labels = {names.LABEL_UID: UID, names.LABEL_COMPONENT: names.COMPONENT_TRAIN}
        meta = {**metadata("tone-1-0"), "labels": {**labels, names.LABEL_ATTEMPT: "1"}}
        status = {"phase": "Running", "message": HOSTILE, "reason": HOSTILE}
        return {"metadata": meta, "spec": {"nodeName": HOSTILE}, "status": status}

    def _node(self) -> JsonObject:
        labels = {"nvidia.com/gpu.product": HOSTILE, "nvidia.com/cuda.driver-version.full": HOSTILE}
        return {
            "metadata": {"name": HOSTILE, "labels": labels},
            "status": {"allocatable": {"nvidia.com/gpu": "8", f"rdma/{HOSTILE}": "1"}},
        }


@contextmanager
def served(cluster: HostileCluster) -> Iterator[str]:
    """The address of an API server that answers for the cluster."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            if cluster.failing:
                return self._send(cluster.failing, json.dumps(cluster.refusal()).encode())
            if parts.path.endswith("/log"):
                return self._send(200, HOSTILE.encode() + b"\xff\xfe\nlast \x1b[8mline\r\n")
            if "watch" in parse_qs(parts.query):
                time.sleep(cluster.pause)
                event = {"type": "MODIFIED", "object": cluster.later or cluster.finetune}
                return self._send(200, json.dumps(event).encode() + b"\n")
            return self._send(200, json.dumps(cluster.answer(parts.path)).encode())

        def _send(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
