"""The document: one operation for each route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_api.names import VERSION
from finetune_gateway.wire.openapi.objects import OBJECTS
from finetune_gateway.wire.openapi.parts import Schema, boolean, integer, ref, text
from finetune_gateway.wire.openapi.requests import REQUESTS
from finetune_gateway.wire.pages import MOST

JSON, FORM, BYTES = "application/json", "multipart/form-data", "application/octet-stream"
EVENTS = "text/event-stream"
Operation = dict[str, Any]

_ORDER = {"enum": ["asc", "desc"], "description": "By time; desc begins with the newest."}
_PAGE = {
    "after": text("Id of the last object of the page before."),
    "limit": integer("Number of objects.", minimum=1, maximum=MOST),
    "order": _ORDER,
}
_FILES_PAGE = _PAGE | {
    "limit": integer("Number of objects.", minimum=1, maximum=10_000),
    "purpose": text("Only files with this purpose."),
}
_STREAM = {"stream": boolean("Send server-sent events until the training ends.")}


def build_document() -> dict[str, Any]:
    """The document in version 3.1 of OpenAPI."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "finetune-operator",
            "version": VERSION,
            "description": "OpenAI's files, fine-tuning, models, and completions for FineTunes.",
        },
        "security": [{"key": []}],
        "paths": _paths(),
        "components": {
            "schemas": OBJECTS | REQUESTS,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of the gateway, or a token of Kubernetes.",
                }
            },
        },
    }


def _paths() -> dict[str, dict[str, Operation]]:
    tune, job, file, upload = "/v1/fine-tunes", "/v1/fine_tuning/jobs", "/v1/files", "/v1/uploads"
    permissions = "/v1/fine_tuning/checkpoints/{model}/permissions"
    return {
        file: {
            "post": _operation("Upload a file.", "File", body="NewFile", media=FORM),
            "get": _operation("List the uploaded files.", "FileList", query=_FILES_PAGE),
        },
        f"{file}/{{id}}": {
            "get": _operation("Get a file.", "File", path=["id"]),
            "delete": _operation("Delete an uploaded file.", "Deleted", path=["id"]),
        },
        f"{file}/{{id}}/content": {
            "get": _operation("Download a file.", None, path=["id"], answers=BYTES),
        },
        upload: {"post": _operation("Begin an upload in parts.", "Upload", body="NewUpload")},
        f"{upload}/{{id}}/parts": {
            "post": _operation("Add a part.", "Part", path=["id"], body="NewPart", media=FORM),
        },
        f"{upload}/{{id}}/complete": {
            "post": _operation("Join the parts.", "Upload", path=["id"], body="UploadEnd"),
        },
        f"{upload}/{{id}}/cancel": {
            "post": _operation("Cancel an upload.", "Upload", path=["id"]),
        },
        tune: {
            "post": _operation("Create a fine-tune.", "FineTune", body="NewFineTune"),
            "get": _operation("List the fine-tunes.", "FineTuneList", query=_PAGE),
        },
        f"{tune}/{{id}}": {
            "get": _operation("Get a fine-tune.", "FineTune", path=["id"]),
            "delete": _operation("Delete a fine-tune.", "Deleted", path=["id"]),
        },
        f"{tune}/{{id}}/cancel": {
            "post": _operation("Cancel a fine-tune.", "FineTune", path=["id"]),
        },
        f"{tune}/{{id}}/events": {
            "get": _operation(
                "List or follow the events.", "FineTuneEventList", path=["id"], query=_STREAM
            ),
        },
        job: {
            "post": _operation("Create a job.", "Job", body="NewJob"),
            "get": _operation("List the jobs.", "JobList", query=_PAGE),
        },
        f"{job}/{{id}}": {"get": _operation("Get a job.", "Job", path=["id"])},
        **{
            f"{job}/{{id}}/{verb}": {
                "post": _operation(f"{verb.capitalize()} a job.", "Job", path=["id"])
            }
            for verb in ("cancel", "pause", "resume")
        },
        f"{job}/{{id}}/events": {
            "get": _operation(
                "List or follow the events, and rows of results.csv.",
                "JobEventList",
                path=["id"],
                query=_PAGE | _STREAM,
            ),
        },
        f"{job}/{{id}}/checkpoints": {
            "get": _operation("List the checkpoints.", "CheckpointList", path=["id"], query=_PAGE),
        },
        permissions: {
            "get": _operation(
                "List the permissions.", "PermissionList", path=["model"], query=_PAGE
            ),
            "post": _operation("Not supported.", None, path=["model"], is_refused=True),
        },
        f"{permissions}/{{permission}}": {
            "delete": _operation(
                "Not supported.", None, path=["model", "permission"], is_refused=True
            ),
        },
        "/v1/models": {"get": _operation("List the models.", "ModelList")},
        "/v1/models/{id}": {
            "get": _operation("Get a model.", "Model", path=["id"]),
            "delete": _operation("Delete a fine-tuned model.", "Deleted", path=["id"]),
        },
        "/v1/completions": {
            "post": _operation("Complete a prompt.", "Completion", body="NewCompletion"),
        },
        "/v1/engines/{model}/completions": {
            "post": _operation(
                "Complete a prompt, as before /v1/completions.",
                "Completion",
                path=["model"],
                body="NewCompletion",
            ),
        },
        "/v1/chat/completions": {
            "post": _operation("Complete a chat.", "Completion", body="NewChatCompletion"),
        },
        "/v1/openapi.json": {"get": _operation("Get this document.", None, answers=JSON)},
    }


def _operation(
    summary: str,
    answer: str | None,
    *,
    path: Sequence[str] = (),
    query: dict[str, Schema] | None = None,
    body: str | None = None,
    media: str = JSON,
    answers: str = JSON,
    is_refused: bool = False,
) -> Operation:
    """answer: the schema of the answer. body: that of the request, as `media`."""
    schema: Schema = ref(answer) if answer else {}
    content: dict[str, Any] = {answers: {"schema": schema}}
    if (query and "stream" in query) or answer == "Completion":
        content[EVENTS] = {"schema": {"type": "string"}}
    error = {"description": "An error.", "content": {JSON: {"schema": ref("Error")}}}
    found: Operation = {
        "summary": summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in path
            ),
            *({"name": name, "in": "query", "schema": it} for name, it in (query or {}).items()),
        ],
        "responses": {
            **({} if is_refused else {"200": {"description": "Success.", "content": content}}),
            "default": error,
        },
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": {media: {"schema": ref(body)}}}
    return found
