"""Configuration files on disk.

The rule of this room: a file that already says the same is not touched. kube-proxy ends itself when
its configuration is written, even with the same text, and `up` may find it running.
"""

from collections.abc import Mapping
from pathlib import Path


def write_all(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes each text to the path below `folder` that is its key."""
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
