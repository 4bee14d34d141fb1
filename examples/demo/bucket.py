"""The files of the demo in S3, under `s3://BUCKET/demo/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PREFIX = "demo"


class Bucket:
    """Upload, download, and deletion of the demo's files."""

    def __init__(self, name: str, s3: Mapping[str, str]) -> None:
        import boto3
        from botocore.config import Config

        self.name = name
        self._client: Any = boto3.client(
            "s3",
            aws_access_key_id=s3["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=s3["AWS_SECRET_ACCESS_KEY"],
            region_name=s3.get("AWS_REGION"),
            endpoint_url=s3.get("AWS_ENDPOINT_URL"),
            config=Config(connect_timeout=10, retries={"max_attempts": 5}, proxies=_proxies(s3)),
        )

    def create(self) -> None:
        """Create the bucket unless it exists."""
        try:
            self._client.head_bucket(Bucket=self.name)
        except self._client.exceptions.ClientError:
            self._client.create_bucket(Bucket=self.name)

    def empty(self) -> int:
        """Delete the objects of earlier demos under `demo/`; returns their number."""
        count = 0
        for page in self._pages(f"{PREFIX}/"):
            for entry in page:
                self._client.delete_object(Bucket=self.name, Key=entry["Key"])
                count += 1
        return count

    def put(self, name: str, data: bytes) -> str:
        """Write demo/<name>; returns its URI."""
        self._client.put_object(Bucket=self.name, Key=f"{PREFIX}/{name}", Body=data)
        return f"s3://{self.name}/{PREFIX}/{name}"

    def read(self, uri: str) -> bytes:
        """Read an object."""
        place = urlsplit(uri)
        found = self._client.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))
        data: bytes = found["Body"].read()
        return data

    def download(self, uri: str, folder: Path) -> int:
        """Download the files directly below a prefix; returns their total size in bytes."""
        place = urlsplit(uri)
        prefix = f"{place.path.strip('/')}/"
        folder.mkdir(parents=True, exist_ok=True)
        size = 0
        for page in self._pages(prefix, place.netloc):
            for entry in page:
                name = entry["Key"].removeprefix(prefix)
                if "/" in name or name in {"", ".", ".."}:
                    continue
                self._client.download_file(place.netloc, entry["Key"], str(folder / name))
                size += entry["Size"]
        return size

    def _pages(self, prefix: str, bucket: str | None = None) -> list[list[dict[str, Any]]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket or self.name, Prefix=prefix
        )
        return [page.get("Contents", []) for page in pages]


def _proxies(s3: Mapping[str, str]) -> dict[str, str] | None:
    """A store with its own endpoint is local: {} prevents boto3 from using a proxy."""
    return {} if s3.get("AWS_ENDPOINT_URL") else None
