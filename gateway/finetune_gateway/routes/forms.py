"""Bodies of multipart/form-data, which are read as a stream and never as a whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import unquote

from aiohttp import BodyPartReader, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from finetune_web.problems import Problem, invalid

FORM_BYTES = 2**16  # of a form without the content of its file
BLOCK_BYTES = 2**16
TEXT_BYTES = 1024  # of a field that is not a file
SILENT_SECONDS = 60  # after which a client that sends nothing is gone
# What is read of a body after a refusal, so that a client that sends it all sees the answer.
DRAINED_BYTES, DRAIN_SECONDS, DRAIN_SILENT_SECONDS = 2**29, 60, 5

_CONTINUED: web.RequestKey[bool] = web.RequestKey("continued", bool)
# A parameter of Content-Disposition, as browsers, curl, and Python's clients write it: a backslash
# is a character of a path on Windows, except before a quotation mark.
_PARAMETER = re.compile(
    r""";\s*(?P<key>name|filename)(?P<star>\*?)\s*=\s*(?:"(?P<quoted>(?:\\"|[^"])*)"|(?P<plain>[^;\s"]+))""",
    re.IGNORECASE,
)
_PLAIN = frozenset({"", "7bit", "8bit", "binary"})
# What aiohttp raises for a body that is no form, or ends early.
_FORM_ERRORS = (ValueError, LookupError, RuntimeError, HttpProcessingError)


@dataclass(frozen=True)
class FormField:
    """A field whose value has not been read yet. Read it before the next one."""

    name: str
    filename: str | None
    part: BodyPartReader

    async def blocks(self) -> AsyncIterator[bytes]:
        """The bytes of the value. Raises Problem."""
        while not self.part.at_eof():
            with _form_problems():
                async with asyncio.timeout(SILENT_SECONDS):
                    block = await self.part.read_chunk(BLOCK_BYTES)
            if block:
                yield bytes(block)

    async def text(self) -> str:
        """A short value. Raises Problem."""
        data = bytearray()
        async for block in self.blocks():
            data += block
            if len(data) > TEXT_BYTES:
                raise invalid(
                    f"The field {self.name} has more than {TEXT_BYTES:,} bytes.", self.name
                )
        return data.decode(errors="replace")


async def form_fields(request: web.Request) -> AsyncIterator[FormField]:
    """The fields in the order in which they arrive. Ends at the end of the form, or raises Problem.

    The caller refuses the fields that it does not know, so that there are not many.
    """
    if request.content_type != "multipart/form-data":
        raise invalid(
            "The body is not multipart/form-data. Send the file as a field of a form, as "
            "`curl -F file=@train.jsonl` does.",
            code="invalid_form",
        )
    await _continue(request)
    with _form_problems():
        reader = await request.multipart()
    while True:
        with _form_problems():
            async with asyncio.timeout(SILENT_SECONDS):
                part = await reader.next()
            if part is None:
                return
            field = _field(part)
        yield field


def _field(part: object) -> FormField:
    if not isinstance(part, BodyPartReader):
        raise ValueError("a part of the form is a form")
    parameters = _parameters(part.headers.get(hdrs.CONTENT_DISPOSITION, ""))
    name = parameters.get("name", "")
    if not name:
        raise ValueError("a part of the form has no name")
    encoding = part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "")
    if encoding.strip().lower() not in _PLAIN:
        raise ValueError(f"the field {name[:64]} has a transfer encoding; send plain bytes")
    return FormField(name, parameters.get("filename"), part)


def _parameters(disposition: str) -> dict[str, str]:
    """The name of a field, and the name of its file. An extended form (`*`) counts first."""
    found: dict[str, str] = {}
    if disposition.partition(";")[0].strip().lower() != "form-data":
        return found
    # aiohttp keeps bytes that are no text as half surrogate pairs, which no JSON can have.
    text_of = disposition.encode(errors="surrogateescape").decode(errors="replace")
    for match in _PARAMETER.finditer(text_of):
        text = match["plain"] or (match["quoted"] or "").replace('\\"', '"')
        if match["star"]:
            found[match["key"].lower()] = unquote(text.rpartition("'")[2], errors="replace")
        else:
            found.setdefault(match["key"].lower(), text)
    return found


@contextmanager
def _form_problems() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise invalid(
            f"The upload has stopped: nothing has arrived for {SILENT_SECONDS} seconds.",
            code="upload_stalled",
        ) from error
    except _FORM_ERRORS as error:
        raise invalid(
            "The form ends early, or is not multipart/form-data. Send it again, as "
            "`curl -F file=@train.jsonl` does.",
            code="invalid_form",
        ) from error


# --- refusals ------------------------------------------------------------------------------------


async def expect_later(request: web.Request) -> None:
    """The handler of `Expect: 100-continue`: a refused client needs to send nothing at all."""
    request[_CONTINUED] = False


async def _continue(request: web.Request) -> None:
    if not request.get(_CONTINUED, True) and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer, which has not begun
    request[_CONTINUED] = True


@asynccontextmanager
async def draining(request: web.Request) -> AsyncIterator[None]:
    """Read the rest of the body when a Problem is raised within it.

    A client that only sends until the connection breaks never sees an answer that comes early.
    """
    try:
        yield
    except Problem:
        if request.get(_CONTINUED, True) and (request.content_length or 0) <= DRAINED_BYTES:
            await _drain(request)
        raise


async def _drain(request: web.Request) -> None:
    left = DRAINED_BYTES
    with suppress(TimeoutError, ConnectionError, *_FORM_ERRORS):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0 and not request.content.at_eof():
                async with asyncio.timeout(DRAIN_SILENT_SECONDS):
                    left -= len(await request.content.readany())
