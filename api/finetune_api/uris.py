"""URIs of files and models, and of the endpoints that serve them.

`s3://bucket/key`, `hf://organization/name@revision`, and `https://host:port`.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

S3_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"
S3Address = Annotated[str, Field(min_length=6, max_length=1024, pattern=S3_PATTERN)]
# The limits of new FineTunes, in bytes of UTF-8: of S3 itself for a file, and of what results fit
# into a termination message for the prefix of the results. `crd.rules` applies them.
ADDRESS_BYTES, OUTPUT_BYTES = 1024, 512
_S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<key>.*))?", re.DOTALL)
_HF = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class S3Uri:
    """The URI of an object, or of a prefix without its trailing slash."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> "S3Uri":
        """Raise ValueError with the cause unless the text is a plain s3:// URI."""
        found = _match(_S3, text, "an S3 address: expected s3://bucket/key")
        key = found["key"] or ""
        parts = key.rstrip("/").split("/")
        if any(part in {"", ".", ".."} for part in parts) and key.strip("/"):
            raise ValueError(f"{text!r} has an empty, '.' or '..' part in its key")
        if any(ord(char) < 32 or char in "\\\x7f" for char in key):
            raise ValueError(f"{text!r} has a control character or a backslash in its key")
        return cls(found["bucket"], key.rstrip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def child(self, *parts: str) -> "S3Uri":
        """The URI below this one."""
        return S3Uri(self.bucket, "/".join(filter(None, (self.key, *parts))))


@dataclass(frozen=True)
class HubUri:
    """The URI of a model on a Hugging Face hub."""

    repo: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> "HubUri":
        """Raise ValueError unless the text is an hf:// URI. The default revision is main."""
        found = _match(_HF, text, "a hub address: expected hf://organization/name@revision")
        return cls(found["repo"], found["revision"] or "main")

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.revision}"


def parse_model_uri(text: str) -> S3Uri | HubUri:
    """The location of a model's files."""
    return HubUri.parse(text) if text.startswith("hf://") else S3Uri.parse(text)


_ENDPOINT = re.compile(
    r"(?:(?P<scheme>https?)://)?"
    r"(?P<host>\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE,
)
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class EndpointPattern:
    """An entry in a list of allowed endpoints: a URL without a path, or a host.

    A host stands for itself and, because buckets can be a part of the host, for the names below it;
    `*.host` stands only for the names below it, and `*` for all hosts. Without a scheme, both are
    meant. Without a port, that of the scheme is, or every port if there is no scheme either.
    """

    scheme: str | None
    host: str  # in lower case, without brackets
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "EndpointPattern":
        """Raise ValueError unless the text is an entry."""
        found = _match(_ENDPOINT, text, "an endpoint: expected https://host, host:port, or *.host")
        scheme = found["scheme"] and found["scheme"].lower()
        port = int(found["port"]) if found["port"] else PORTS.get(scheme or "")
        return cls(scheme, found["host"].lower().strip("[]"), port)

    @property
    def is_exact(self) -> bool:
        """Whether it names one host."""
        return not self.host.startswith("*")

    def has_match(self, scheme: str, host: str, port: int) -> bool:
        """host: in lower case, without brackets and without a dot at its end."""
        if self.scheme not in {None, scheme} or self.port not in {None, port}:
            return False
        below = host.endswith("." + self.host.removeprefix("*").removeprefix("."))
        return self.host == "*" or below or host == self.host


def _match(pattern: re.Pattern[str], text: str, expected: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not {expected}")
    return found
