"""The part of a Hugging Face hub that a download needs, as answers of a real HTTP server."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.data.stub_server import Answer, Request

COMMIT = "c" * 40


class Hub:
    """The repository acme/tiny, whose branch v1 has one commit or more."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.digests: dict[str, str] = {}  # of files in Git LFS
        self.commit = COMMIT
        self.former: dict[str, dict[str, bytes]] = {}  # the files of earlier commits

    def push(self, commit: str, **changes: bytes) -> None:
        """Add a commit to the branch. changes: files, with an underscore instead of the dot."""
        self.former[self.commit] = self.files
        changed = {name.replace("_", "."): data for name, data in changes.items()}
        self.commit, self.files = commit, self.files | changed

    def __call__(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        commits = {**self.former, self.commit: self.files}
        named = path.removeprefix("/api/models/acme/tiny/revision/")
        commit = self.commit if named == "v1" else named
        if path.startswith("/api/models/acme/tiny/revision/") and commit in commits:
            siblings = [self._describe(name, data) for name, data in commits[commit].items()]
            info = {"id": "acme/tiny", "sha": commit, "siblings": siblings}
            return Answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        commit, _, name = path.removeprefix("/acme/tiny/resolve/").partition("/")
        if name in commits.get(commit, ()):
            data = commits[commit][name]
            return Answer(200, data, {"ETag": f'"{_blob(data)}"', "X-Repo-Commit": commit})
        code = "RevisionNotFound" if "acme/tiny" in path else "RepoNotFound"
        return Answer(404, b"{}", {"X-Error-Code": code})

    def _describe(self, name: str, data: bytes) -> dict[str, Any]:
        size = len(data)
        found: dict[str, Any] = {"rfilename": name, "size": size, "blobId": _blob(data)}
        if name in self.digests:
            found["lfs"] = {"size": size, "sha256": self.digests[name], "pointerSize": 100}
        return found


def _blob(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
