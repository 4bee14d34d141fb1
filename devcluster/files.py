"""Configuration files on disk.

Files with the same text are not written again: kube-proxy exits when its configuration is written,
even without a change, and it can be running during `up`.
"""

from collections.abc import Mapping
from pathlib import Path


def write_all(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts by their paths below `folder`."""
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
