"""OpenAI's uploads API: `/v1/uploads`, for a file in several requests."""

from __future__ import annotations

import re

from aiohttp import web
from pydantic import ValidationError

from finetune_api.wire import JsonObject
from finetune_gateway.files.file_names import safe_name
from finetune_gateway.files.upload_sessions import MOST_PARTS, UploadSessions, UploadState
from finetune_gateway.routes.context import read_object, services
from finetune_gateway.routes.file_requests import (
    EXPIRY,
    check_purpose,
    refuse_expiry,
    require_files,
)
from finetune_gateway.routes.forms import draining, expect_later, form_fields
from finetune_gateway.wire.uploads import UploadSession, part_object, upload_object
from finetune_web.answers import json_response
from finetune_web.problems import invalid, missing

_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_CREATE = frozenset({"bytes", "filename", "mime_type", "purpose"})
_COMPLETE = frozenset({"part_ids", "md5"})


async def create(request: web.Request) -> web.Response:
    body = await read_object(request)
    await require_files(request, "create")
    state = await _sessions(request).create(_parse_session(body))
    return json_response(upload_object(state.id, state.session, "pending"))


async def add_part(request: web.Request) -> web.Response:
    """Store one part. Parts may arrive at the same time, and in any order."""
    added = None
    async with draining(request):
        state = await _find(request)
        async with _sessions(request).adding(state) as (part_id, upload):
            async for field in form_fields(request):
                if field.name != "data" or added is not None:
                    raise invalid(
                        f"The form has an unexpected field {field.name[:64]!r}. Its only field is "
                        "data.",
                        field.name[:64],
                        "unknown_field",
                    )
                added = part_id
                async for block in field.blocks():
                    await upload.write(block)
            if added is None or not upload.size:
                raise invalid(
                    "The part is empty. Send its bytes in the field data.", "data", "missing_data"
                )
            await upload.complete()
    return json_response(part_object(state.id, added))


async def complete(request: web.Request) -> web.Response:
    """Make a file of the parts. The answer to a repeated request is the same."""
    body = await read_object(request)
    part_ids, md5 = _parse_completion(body)
    state = await _find(request)
    file = await _sessions(request).complete(state, part_ids, md5)
    return json_response(upload_object(state.id, state.session, "completed", file))


async def cancel(request: web.Request) -> web.Response:
    state = await _find(request)
    await _sessions(request).cancel(state)
    return json_response(upload_object(state.id, state.session, "cancelled"))


def _sessions(request: web.Request) -> UploadSessions:
    return UploadSessions(services(request).files)


async def _find(request: web.Request) -> UploadState:
    upload_id = request.match_info["id"]
    await require_files(request, "create")
    state = await _sessions(request).find(upload_id)
    if state is None:
        raise missing(f"No such Upload object: {upload_id[:200]}.", "upload_id")
    return state


def _parse_session(body: JsonObject) -> UploadSession:
    if body.get(EXPIRY) is not None:
        raise refuse_expiry()
    _refuse_unknown(body, _CREATE | {EXPIRY})
    size, filename = body.get("bytes"), body.get("filename")
    if type(size) is not int or size < 1:
        raise invalid("bytes must be the size of the file, a number from 1 on.", "bytes")
    if not isinstance(filename, str) or not filename:
        raise invalid("filename must be the name of the file.", "filename")
    purpose, kind = body.get("purpose"), body.get("mime_type")
    if not isinstance(purpose, str):
        raise invalid("purpose is required. Set it to fine-tune.", "purpose", "missing_purpose")
    try:
        return UploadSession(
            bytes=size,
            filename=safe_name(filename),
            purpose=check_purpose(purpose),
            mime_type="" if kind is None else kind,
        )
    except ValidationError as error:
        raise invalid(
            "mime_type must be a media type such as application/jsonl.", "mime_type"
        ) from error


def _parse_completion(body: JsonObject) -> tuple[list[str], str | None]:
    _refuse_unknown(body, _COMPLETE)
    listed, md5 = body.get("part_ids"), body.get("md5")
    items = listed if isinstance(listed, list) else []
    part_ids = [item for item in items if isinstance(item, str)]
    if len(part_ids) != len(items) or not 1 <= len(part_ids) <= MOST_PARTS:
        raise invalid(
            f"part_ids must be a list of the ids of 1 to {MOST_PARTS:,} parts, in their order.",
            "part_ids",
        )
    if md5 is None:
        return part_ids, None
    if not isinstance(md5, str) or _MD5.fullmatch(md5) is None:
        raise invalid("md5 must be the MD5 digest of the file, 32 hexadecimal digits.", "md5")
    return part_ids, md5.lower()


def _refuse_unknown(body: JsonObject, known: frozenset[str]) -> None:
    unknown = next((name for name in body if name not in known), None)
    if unknown is not None:
        raise invalid(
            f"{unknown[:64]!r} is not a field of this request. Its fields are "
            f"{', '.join(sorted(known - {EXPIRY}))}.",
            unknown[:64],
            "unknown_field",
        )


_UPLOAD = "/v1/uploads/{id:[^/]+}"
ROUTES: list[web.RouteDef] = [
    web.post("/v1/uploads", create),
    web.post(f"{_UPLOAD}/parts", add_part, expect_handler=expect_later),
    web.post(f"{_UPLOAD}/complete", complete),
    web.post(f"{_UPLOAD}/cancel", cancel),
]
