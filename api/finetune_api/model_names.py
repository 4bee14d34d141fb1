"""Names of fine-tuned models, as users of the old service know them."""

import re
from datetime import UTC, datetime

FINE_TUNED_MARK = ":ft-"  # in every name of a fine-tuned model, behind its base's

_OTHER = re.compile(r"[^a-z0-9]+")


def slug(text: str) -> str:
    """Lower case, every run of other characters one dash."""
    return _OTHER.sub("-", text.lower()).strip("-")


def fine_tuned_model_name(base: str, organization: str, suffix: str | None, at: datetime) -> str:
    """`ada:ft-your-org:custom-model-name-2022-02-15-04-21-04`, or `ada:ft-your-org-2022-...`.

    `at` is an aware time; the name holds it in UTC.
    """
    stamp = at.astimezone(UTC).strftime("%Y-%m-%d-%H-%M-%S")
    name = slug(suffix or "")
    return f"{base}{FINE_TUNED_MARK}{slug(organization)}{':' + name if name else ''}-{stamp}"


def resource_name(model_id: str) -> str:
    """The DNS-safe name of the Model resource."""
    return slug(model_id)[:253].strip("-")
