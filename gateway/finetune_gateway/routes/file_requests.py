"""What the endpoints of files and of uploads require of a request."""

from __future__ import annotations

from aiohttp import web

from finetune_gateway.files.bucket_files import PURPOSE
from finetune_gateway.kube.cluster import Verb
from finetune_gateway.problems import forbidden
from finetune_gateway.routes.context import caller, services
from finetune_gateway.routes.lookup import asking
from finetune_gateway.wire.kube_answers import OWNER, USER
from finetune_web.problems import Problem, invalid

EXPIRY = "expires_after"
_DOES = {"create": "upload", "list": "read", "delete": "delete"}


async def require_files(request: web.Request, verb: Verb) -> None:
    """Raise Problem unless the caller has this right for FineTunes, which counts for files, too."""
    parts = services(request)
    with asking(request, verb, "finetunes") as asked:
        if await parts.cluster.may(caller(request), verb, "finetunes"):
            return
    who = f"an owner (role {OWNER})" if verb == "delete" else f"a user (role {USER})"
    key = f" The account {asked.account} of this key is not." if asked.account else ""
    raise forbidden(f"You must be {who} to {_DOES[verb]} files in {asked.namespace}.{key}")


def check_purpose(text: str) -> str:
    if text != PURPOSE:
        raise invalid(
            f"purpose is {text[:64]!r}, but files here are for fine-tuning only. Set it to "
            f"{PURPOSE}.",
            "purpose",
            "invalid_purpose",
        )
    return text


def refuse_expiry() -> Problem:
    return invalid(
        f"{EXPIRY} is not supported: files stay until you delete them. Leave it out.",
        EXPIRY,
        "unsupported",
    )
