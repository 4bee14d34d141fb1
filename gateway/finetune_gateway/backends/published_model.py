"""The files of a fine-tuned model, as the completion server finds them.

The server reads S3 with its own credentials, so the gateway sends no address that a user wrote. It
computes the address, and compares it with that of the Model.
"""

from __future__ import annotations

import re

from finetune_api.layout import RunLayout
from finetune_api.model import Model
from finetune_api.uris import S3Uri
from finetune_gateway.settings import Settings
from finetune_gateway.wire.completions.answers import not_served
from finetune_gateway.wire.ids import NAME
from finetune_web.problems import Problem

URI_HEADER = "X-Finetune-Model-Uri"
DIGEST_HEADER = "X-Finetune-Manifest-Sha256"
_UID = re.compile(r"[0-9a-f]{8}")  # the part of it that an address has
_DIGEST = re.compile(r"[0-9a-f]{64}")


def headers_of(model: Model, settings: Settings) -> tuple[tuple[str, str], ...]:
    """The address of the model and the digest of its manifest. Raises Problem without them.

    The Model is one that the API server returned for a request of the caller. A user who may
    write Models can name any FineTune, but only of this namespace and below the chart's output.
    """
    spec = model.spec
    if spec.fine_tune is None:
        raise _unknown(model, "spec.fineTune is not set")
    name, uid = spec.fine_tune.name, spec.fine_tune.uid[:8]
    if NAME.fullmatch(name) is None or _UID.fullmatch(uid) is None:
        raise _unknown(model, "spec.fineTune has no valid name and UID")
    published = RunLayout.of(settings.output, settings.namespace, name, uid).model
    if S3Uri.parse(spec.uri) != published:
        raise _unknown(
            model, f"spec.uri is not {published}, where its FineTune publishes below the output"
        )
    if _DIGEST.fullmatch(spec.manifest_sha256 or "") is None:
        raise _unknown(model, "spec.manifestSha256 is not the digest of its manifest")
    return (URI_HEADER, str(published)), (DIGEST_HEADER, spec.manifest_sha256 or "")


def _unknown(model: Model, reason: str) -> Problem:
    return not_served(
        f"The completion server cannot use the model '{model.spec.id}': {reason}. Set spec.serving "
        f"of the Model {model.metadata.name} to a Service that serves it."
    )
