"""The form of an API key, and its hash."""

import hashlib
import re
import secrets

PREFIX = "sk-ft-"
RANDOM_BYTES = 32
_KEY = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")  # 32 bytes in base64url without padding


def new_key() -> str:
    """A new random key. It is shown once and never stored."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def is_key(text: str) -> bool:
    """Whether a text has the form of a key. Whether the key exists is in the Secret."""
    return _KEY.fullmatch(text) is not None


def hash_key(key: str) -> str:
    """The SHA-256 of a key, as 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()
