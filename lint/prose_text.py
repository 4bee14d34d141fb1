"""Reduces a file to its prose, at the same offsets as in the file.

Code becomes `CODE`, the start of a paragraph or string becomes `START`, and markup becomes spaces,
so that a pattern matches across a line break but never across code.
"""

import io
import re
import tokenize
from pathlib import Path

CODE = "\x00"
START = "\x01"
_BACKTICKS = re.compile(r"(`+)[^`\n]+(?:\n[^`\n]+)?\1")
_BRACES = re.compile(r"\{[^{}\n]*\}")
_ESCAPES = re.compile(r"\\[nt]")
_PREFIX = re.compile(r"[a-zA-Z]*('''|\"\"\"|'|\")")
_FENCE = re.compile(r"^ *(```+)(.*)$")
_URL = re.compile(r"\]\([^)\s]*\)|<?https?://[^\s>)]*>?|<!--.*?-->|\{[.#][^}\n]*\}")
_KEY = re.compile(r"^[ -]*[\w./-]+:(?=\s)", re.MULTILINE)
_MARKUP = re.compile(r"[ \t]*(?:[#>*\"'-]+[ \t]*)+")
_COMMENT = re.compile(r"(?:^|\s)(#+)")


def prose_of(path: Path) -> str:
    """Return the prose of a file; its offsets and lines are those of the file."""
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".py":
            return _python(text)
        case ".md":
            return _markdown(text)
        case _:
            return _paragraphs(_cut(text, _KEY))


def _blank(text: str, fill: str) -> str:
    """The same lines and length, each character replaced."""
    return "\n".join(fill * len(line) for line in text.split("\n"))


def _cut(text: str, *patterns: re.Pattern[str]) -> str:
    """Replace inline code with `CODE`."""
    for pattern in (_BACKTICKS, *patterns):
        text = pattern.sub(lambda match: _blank(match[0], CODE), text)
    return text


def _python(text: str) -> str:
    """Comments and strings; a string without a space is an identifier and not prose."""
    result = list(_blank(text, CODE))
    offsets = [0]
    for line in text.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    previous = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        start = offsets[token.start[0] - 1] + token.start[1]
        end = offsets[token.end[0] - 1] + token.end[1]
        kind = token.type
        if kind == tokenize.COMMENT:
            prose = _cut(token.string.replace("#", " "))
            continues = previous is not None and previous[0] == kind
        elif kind == tokenize.STRING:
            opening = _PREFIX.match(token.string)
            assert opening is not None
            inner = token.string[opening.end() : -len(opening[1])]
            if not re.search(r"\s", inner):
                previous = None
                continue
            inner = _cut(_ESCAPES.sub("  ", inner), _BRACES, _BRACES)
            prose = " " * opening.end() + inner + " " * len(opening[1])
            continues = previous is not None and previous[0] == kind
        else:
            if kind not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
                previous = None
            continue
        if continues and previous is not None:
            result[previous[1] : start] = _blank(text[previous[1] : start], " ")
        result[start:end] = prose if continues else START + prose[1:]
        previous = (kind, end)
    return "".join(result)


def _markdown(text: str) -> str:
    """Paragraphs, tables, and headings; of a fenced block only comments and shown output."""
    lines = []
    fence, language = "", ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if found and (not fence or (found[1] == fence and not found[2].strip())):
            language = found[2].split("{")[0].strip()
            fence = "" if fence else found[1]
            lines.append(_blank(line, CODE))
        elif fence and language != "text":
            comment = _COMMENT.search(line)
            cut = comment.end() if comment else len(line)
            lines.append(_blank(line[:cut], CODE) + line[cut:])
        else:
            lines.append(line)
    return _paragraphs(_cut("".join(lines), _URL))


def _paragraphs(text: str) -> str:
    """Mark where a list item, comment, or table cell starts, and remove its markup."""
    lines = []
    before = ""
    for line in text.splitlines(keepends=True):
        found = _MARKUP.match(line)
        markup = found[0] if found else ""
        kind = markup.strip()[:1]
        blank = " " * len(markup)
        if kind and not kind == before == "#":  # a comment of several lines starts once
            blank = START + blank[1:]
        lines.append(blank + line[len(markup) :].replace("|", START))
        before = kind
    return "".join(lines)
