"""Keys and values of labels and annotations, and which of them an administrator allows."""

import re
from collections.abc import Sequence

from finetune_api.finetune_spec import LABEL_VALUE, LABEL_VALUE_CHARACTERS

DOMAIN_CHARACTERS = 253
NAME_CHARACTERS = 63

_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SHOWN = 80  # characters of a wrong key in a message


def find_broken_key(key: str) -> str | None:
    """What is wrong with the key of a label or an annotation, as a sentence; None: nothing."""
    domain, slash, name = key.rpartition("/")
    if slash and (len(domain) > DOMAIN_CHARACTERS or _DOMAIN.fullmatch(domain) is None):
        return f"{key[:_SHOWN]!r} is not a key: what is before the / must be a domain"
    if len(name) > NAME_CHARACTERS or _NAME.fullmatch(name) is None:
        return (
            f"{key[:_SHOWN]!r} is not a key: use [domain/]name, and at most {NAME_CHARACTERS} "
            "letters, digits, '-', '_', and '.' for the name"
        )
    return None


def find_broken_value(value: str) -> str | None:
    """What is wrong with the value of a label, as a sentence; None: nothing."""
    if len(value) <= LABEL_VALUE_CHARACTERS and re.fullmatch(LABEL_VALUE, value):
        return None
    return (
        f"{value[:_SHOWN]!r} is not the value of a label: use at most {LABEL_VALUE_CHARACTERS} "
        "letters, digits, '-', '_', and '.', and begin and end with a letter or a digit"
    )


def is_allowed(key: str, prefixes: Sequence[str]) -> bool:
    """Whether a key has one of the prefixes.

    A prefix with a / is the beginning of the key: `acme.com/` or `acme.com/team-`. One without a /
    is a whole domain, so that `acme.com` does not allow `acme.com.example/x`, or the beginning of a
    key without a domain.
    """
    domain, slash, _ = key.rpartition("/")
    return any(
        key.startswith(prefix) if "/" in prefix or not slash else domain == prefix
        for prefix in prefixes
        if prefix
    )
