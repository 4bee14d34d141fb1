"""MkDocs hooks: the website includes repository files that pages link to outside docs/.

In the repository, a page links to `../examples/gitops/weekly/cronjob.yaml`. In the website, the
link becomes `files/examples/gitops/weekly/cronjob.yaml`. A Markdown file is included as plain text.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"(?<=\]\()((?:\.\./)+)([^)#\s]+)(?=[)#\s])")
FOLDER = "files"


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside docs/ that a page links to."""
    for page in list(files.documentation_pages()):
        for path in linked_files(page.content_string, page.src_uri):
            if files.get_file_from_path(_site_path(path)) is None:
                files.append(File.generated(config, _site_path(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite the links. A broken link remains, so that MkDocs reports it."""
    depth = page.file.src_uri.count("/")

    def rewritten(link: re.Match[str]) -> str:
        path = _target(link, depth)
        return link[0] if path is None else "../" * depth + _site_path(path)

    return OUTSIDE.sub(rewritten, markdown)


def linked_files(text: str, page: str) -> list[Path]:
    """List the files outside docs/ that a page links to."""
    targets = (_target(link, page.count("/")) for link in OUTSIDE.finditer(text))
    return [path for path in targets if path is not None]


def _target(link: re.Match[str], depth: int) -> Path | None:
    path = ROOT / link[2]
    is_outside = link[1].count("../") > depth
    return path if is_outside and path.is_file() else None


def _site_path(path: Path) -> str:
    """The path of the file in the website."""
    name = path.relative_to(ROOT).as_posix()
    return f"{FOLDER}/{name}.txt" if path.suffix == ".md" else f"{FOLDER}/{name}"
