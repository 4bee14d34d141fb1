"""Names of fine-tuned models, in the format of OpenAI's fine-tunes API."""

import re
from datetime import UTC, datetime

# The name of a Kubernetes object. With a longer one, its Model would lose the time at the end.
MODEL_NAME_CHARACTERS = 253
FINE_TUNED_MARK = ":ft-"  # follows the base model in the name of every fine-tuned model

_OTHER = re.compile(r"[^a-z0-9]+")


def slug(text: str) -> str:
    """The text in lower case, with one dash for each run of other characters."""
    return _OTHER.sub("-", text.lower()).strip("-")


def fine_tuned_model_name(base: str, organization: str, suffix: str | None, at: datetime) -> str:
    """`ada:ft-your-org:custom-model-name-2022-02-15-04-21-04`, or `ada:ft-your-org-2022-...`.

    `at` is a time with a time zone; the name contains it in UTC.
    """
    stamp = at.astimezone(UTC).strftime("%Y-%m-%d-%H-%M-%S")
    name = slug(suffix or "")
    return f"{base}{FINE_TUNED_MARK}{slug(organization)}{':' + name if name else ''}-{stamp}"


def resource_name(model_id: str) -> str:
    """The DNS-safe name of the Model resource."""
    return slug(model_id)[:MODEL_NAME_CHARACTERS].strip("-")
