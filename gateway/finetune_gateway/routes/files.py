"""OpenAI's files API: `/v1/files`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace

from aiohttp import web

from finetune_gateway.files.bucket_files import PURPOSE
from finetune_gateway.files.content import Content
from finetune_gateway.routes.context import caller, services
from finetune_gateway.routes.file_requests import (
    EXPIRY,
    check_purpose,
    refuse_expiry,
    require_files,
)
from finetune_gateway.routes.forms import FORM_BYTES, draining, expect_later, form_fields
from finetune_gateway.routes.lookup import asking, list_finetunes
from finetune_gateway.wire.file_objects import StoredFile, file_object
from finetune_gateway.wire.file_use import find_user
from finetune_gateway.wire.finetunes import parse_finetune
from finetune_gateway.wire.ids import Artifact, is_file_id, parse_artifact, shown_id
from finetune_gateway.wire.models import deleted_object
from finetune_gateway.wire.pages import cut, list_object, parse_page
from finetune_web.answers import json_response
from finetune_web.problems import Problem, invalid, missing

logger = logging.getLogger(__name__)

MOST_SHOWN = 10_000
SEND_SECONDS = 300  # in which a client must take a block
SENT_BYTES = 2**16


async def create(request: web.Request) -> web.Response:
    """Store a file while it arrives. Its purpose may come after it, as in curl's examples."""
    files = services(request).files
    purpose = upload = None
    async with draining(request), AsyncExitStack() as stack:
        await require_files(request, "create")
        await files.admit(max(0, (request.content_length or 0) - FORM_BYTES))
        async for field in form_fields(request):
            if field.name == "purpose" and purpose is None:
                purpose = check_purpose(await field.text())
            elif field.name == "file" and upload is None:
                name = field.filename or ""
                upload = await stack.enter_async_context(files.uploading(name))
                async for block in field.blocks():
                    await upload.write(block)
            else:
                raise _unexpected(field.name)
        if upload is None:
            raise invalid(
                "The form has no file. Send its content in the field file.", "file", "missing_file"
            )
        if purpose is None:
            raise invalid(
                f"purpose is required. Set it to {PURPOSE}.", "purpose", "missing_purpose"
            )
        file = await upload.complete()
    return json_response(file_object(file))


async def list_all(request: web.Request) -> web.Response:
    """A page of the uploaded files, the newest first. Old clients read only one page."""
    page = parse_page(request.query, default=MOST_SHOWN, most=MOST_SHOWN)
    await require_files(request, "list")
    found = await services(request).files.list()
    purpose = request.query.get("purpose")
    if purpose is not None:
        found = [file for file in found if file.purpose == purpose]
    if page.order == "desc":
        found.reverse()
    if page.after is not None and is_file_id(page.after):
        # Ids are sorted by time, so that a page can follow a file that has been deleted.
        after, is_rest_lower = page.after, page.order == "desc"
        found = [file for file in found if file.id != after and (file.id < after) == is_rest_lower]
        page = replace(page, after=None)
    shown = cut(found, page, lambda file: file.id)
    return json_response(list_object([file_object(file) for file in shown.items], shown.has_more))


async def get(request: web.Request) -> web.Response:
    return json_response(file_object(await _find(request)))


async def delete(request: web.Request) -> web.Response:
    """Delete a file, unless a FineTune still reads it."""
    file_id = request.match_info["id"]
    await require_files(request, "delete")
    if parse_artifact(file_id) is not None:
        raise invalid(
            f"{file_id} is a result of a fine-tune, which cannot be deleted here. Delete the "
            "object in S3, or let a lifecycle rule of the bucket do it.",
            "id",
            "unsupported",
        )
    files = services(request).files
    file = await files.find(file_id)
    if file is None:
        raise _no_such(file_id)
    user = find_user(await list_finetunes(request), str(file.uri))
    if user is not None:
        name, state = user
        raise invalid(
            f"The fine-tune {shown_id(name, 'job')} is {state} and uses the file {file_id}. Delete "
            "the file after the fine-tune has ended, or cancel the fine-tune.",
            "id",
            "file_in_use",
        )
    await files.delete(file)
    return json_response(deleted_object(file_id, "file"))


async def content(request: web.Request) -> web.StreamResponse:
    """The bytes of a file as they are, which no browser may interpret."""
    file = await _find(request)
    found = await services(request).files.open(file)
    if found is None:
        raise _no_such(file.id)
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{file.name}"',
            "X-Content-Type-Options": "nosniff",
        }
    )
    response.content_length = found.size
    await response.prepare(request)
    try:
        await _send(found, response)
    except ConnectionError:
        raise
    except Exception as error:
        # No second answer can follow, and a connection that just ends would look like the end.
        logger.warning("the download of %s is cut off: %s", file.uri, error)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the content cannot be read to its end") from error
    return response


async def _send(found: Content, response: web.StreamResponse) -> None:
    async for block in found.blocks():
        async with asyncio.timeout(SEND_SECONDS):
            # What the connection does not take yet is copied, so it gets a little at a time.
            for start in range(0, len(block), SENT_BYTES):
                await response.write(block[start : start + SENT_BYTES])
    await response.write_eof()


async def _find(request: web.Request) -> StoredFile:
    """The file of the request's id. Raise Problem if there is none."""
    file_id = request.match_info["id"]
    artifact = parse_artifact(file_id)
    if artifact is not None:
        return await _find_artifact(request, artifact)
    await require_files(request, "list")
    file = await services(request).files.find(file_id)
    if file is None:
        raise _no_such(file_id)
    return file


async def _find_artifact(request: web.Request, artifact: Artifact) -> StoredFile:
    """What a FineTune that the caller may read has published."""
    parts = services(request)
    try:
        with asking(request, "get", "finetunes", artifact.finetune):
            found = await parts.cluster.get(caller(request), "finetunes", artifact.finetune)
    except Problem as problem:
        if problem.status == web.HTTPNotFound.status_code:
            raise _no_such(artifact.id) from problem
        raise
    file = await parts.files.find_artifact(artifact, parse_finetune(found))
    if file is None:
        name = shown_id(artifact.finetune, "job")
        raise _no_such(artifact.id, f" The fine-tune {name} has published no such file yet.")
    return file


def _unexpected(name: str) -> Problem:
    if name.partition("[")[0] == EXPIRY:
        return refuse_expiry()
    if name in {"file", "purpose"}:
        return invalid(f"The form has two fields {name}. Send one file a request.", name)
    return invalid(
        f"The form has an unknown field {name[:64]!r}. Its fields are file and purpose.",
        name[:64],
        "unknown_field",
    )


def _no_such(file_id: str, more: str = "") -> Problem:
    """404: for old clients, the id is then the path of a file on their machine."""
    return missing(f"No such File object: {file_id[:200]}.{more}", "id")


_FILE = "/v1/files/{id:[^/]+}"  # an encoded slash is part of the id
ROUTES: list[web.RouteDef] = [
    web.post("/v1/files", create, expect_handler=expect_later),
    web.get("/v1/files", list_all, allow_head=False),
    web.get(_FILE, get, allow_head=False),
    web.delete(_FILE, delete),
    web.get(f"{_FILE}/content", content, allow_head=False),
]
