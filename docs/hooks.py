"""MkDocs: links that leave docs/ point at files of the repository, and the site carries those.

`../examples/gitops/weekly/cronjob.yaml` is right in the repository. In the site it becomes
`files/examples/gitops/weekly/cronjob.yaml`; a Markdown file is carried as plain text.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"(?<=\]\()((?:\.\./)+)([^)#\s]+)(?=[)#\s])")
FOLDER = "files"


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside that a page links to."""
    for page in list(files.documentation_pages()):
        for path in outside(page.content_string, page.src_uri):
            if files.get_file_from_path(_carried(path)) is None:
                files.append(File.generated(config, _carried(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn the links; one that points nowhere stays, and MkDocs complains of it."""
    depth = page.file.src_uri.count("/")

    def turned(found: re.Match[str]) -> str:
        path = _outside(found, depth)
        return found[0] if path is None else "../" * depth + _carried(path)

    return OUTSIDE.sub(turned, markdown)


def outside(text: str, page: str) -> list[Path]:
    """The files beyond docs/ that a page links to."""
    found = (_outside(match, page.count("/")) for match in OUTSIDE.finditer(text))
    return [path for path in found if path is not None]


def _outside(found: re.Match[str], depth: int) -> Path | None:
    path = ROOT / found[2]
    is_outside = found[1].count("../") > depth
    return path if is_outside and path.is_file() else None


def _carried(path: Path) -> str:
    """Its place in the site."""
    name = path.relative_to(ROOT).as_posix()
    return f"{FOLDER}/{name}.txt" if path.suffix == ".md" else f"{FOLDER}/{name}"
