"""Addresses of files and models: `s3://bucket/key` and `hf://org/name@revision`."""

import re
from dataclasses import dataclass

S3_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"
_S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<key>.*))?", re.DOTALL)
_HF = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class S3Uri:
    """An object, or a prefix without its closing slash."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> "S3Uri":
        """Raise ValueError, with what is wrong, for anything but a clean s3:// address."""
        found = _S3.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not an S3 address: expected s3://bucket/key")
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
        """The address below this one."""
        return S3Uri(self.bucket, "/".join(filter(None, (self.key, *parts))))


@dataclass(frozen=True)
class HubUri:
    """A model on a Hugging Face hub."""

    repo: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> "HubUri":
        found = _HF.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a hub address: expected hf://org/name@revision")
        return cls(found["repo"], found["revision"] or "main")

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.revision}"


def parse_model_uri(text: str) -> S3Uri | HubUri:
    """Where a model's files are."""
    return HubUri.parse(text) if text.startswith("hf://") else S3Uri.parse(text)
