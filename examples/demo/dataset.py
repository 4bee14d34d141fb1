"""The data of the demo: real text that every machine has, from Python's standard library.

The docstrings of ten modules give two sets of rows. The base model trains on all of them with an
empty prompt. The second FineTune learns to classify the docstring of a function by its module. The
sources are read with `ast` and never imported. Every choice depends on a hash of the text, so that
one Python version gives the same rows on every machine. No validation text is in the pre-training
data.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Ten modules with more than a hundred docstrings each, since Python 3.11.
MODULES = (
    "asyncio",
    "decimal",
    "email",
    "http",
    "importlib",
    "logging",
    "mailbox",
    "multiprocessing",
    "unittest",
    "xml",
)
# Debian packages tests separately, so that reading them would make the rows depend on packages.
NOT_READ = frozenset({"test", "tests"})

SEPARATOR = "\n\nmodule:"
PROMPT_CHARACTERS = 160  # of the docstring; a byte-level token is at least one character
TEXT_CHARACTERS = 240  # of a pre-training row
ROWS_A_MODULE = 170  # balances the classes, so that the majority share is about a tenth
LEAST_WORDS = 3  # of a row; shorter texts carry no information
SENTENCE_WORDS = 8  # texts of this length do not repeat by chance
VALIDATION_SHARE = 0.22

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_EXAMPLE = re.compile(r"\n\s*>>>|\n\s*Examples?\b")
_WORDS = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Docstring:
    """A docstring with its module and kind."""

    module: str  # top level: "asyncio" for asyncio/base_events.py
    kind: str  # "module", "class" or "function"
    text: str


@dataclass(frozen=True)
class Row:
    """A line of the JSONL."""

    prompt: str
    completion: str

    @property
    def module(self) -> str:
        return self.completion.strip()


@dataclass(frozen=True)
class Dataset:
    """All rows of the demo; training and validation share no prompt."""

    base: list[Row]
    training: list[Row]
    validation: list[Row]

    @property
    def majority_share(self) -> float:
        """The validation accuracy of always predicting the most frequent module."""
        counts = Counter(row.module for row in self.validation)
        return max(counts.values()) / len(self.validation)


def build_dataset(library: Path | None = None) -> Dataset:
    """Read the standard library and build the rows of all three files."""
    docstrings = list(read_docstrings(library or Path(sysconfig.get_path("stdlib"))))
    training, validation = split(classification_rows(docstrings))
    unseen = {fingerprint(row.prompt.removesuffix(SEPARATOR)) for row in validation}
    return Dataset(base_rows(docstrings, unseen), training, validation)


def read_docstrings(library: Path) -> Iterator[Docstring]:
    """Yield every docstring of the ten modules in the order of paths and lines."""
    for module in MODULES:
        paths = [library / f"{module}.py", library / f"_py{module}.py"]
        paths += sorted((library / module).rglob("*.py"))
        for path in paths:
            if not path.is_file() or NOT_READ & set(path.relative_to(library).parts):
                continue
            for node in _documented(ast.parse(path.read_text(encoding="utf-8"))):
                text = ast.get_docstring(node)
                if text and text.isascii():
                    kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
                    yield Docstring(module, kind, text)


def _documented(tree: ast.Module) -> Iterator[Documented]:
    """Yield modules, classes, and functions in the order of lines, without expressions."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Documented):
            yield node
        for field in ("cases", "finalbody", "orelse", "handlers", "body"):
            stack += reversed(getattr(node, field, None) or [])


def classification_rows(docstrings: Iterable[Docstring]) -> list[Row]:
    """One row for each function docstring that names no module and is in one module only."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    prompts: dict[str, tuple[str, str]] = {}
    for docstring in docstrings:
        if docstring.kind != "function":
            continue
        prompt = shorten(prose(docstring.text), PROMPT_CHARACTERS)
        key = fingerprint(prompt)
        owners[key].add(docstring.module)
        if len(key.split()) >= LEAST_WORDS and not names_a_module(prompt):
            prompts.setdefault(key, (prompt, docstring.module))
    rows = [
        Row(prompt + SEPARATOR, " " + module)
        for key, (prompt, module) in prompts.items()
        if len(owners[key]) == 1
    ]
    kept: list[Row] = []
    for module in MODULES:
        kept += shuffled(row for row in rows if row.module == module)[:ROWS_A_MODULE]
    return kept


def split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Split into training and validation with the same share of every module."""
    training: list[Row] = []
    validation: list[Row] = []
    for module in MODULES:
        own = shuffled(row for row in rows if row.module == module)
        cut = round(len(own) * VALIDATION_SHARE)
        validation += own[:cut]
        training += own[cut:]
    return shuffled(training), shuffled(validation)


def base_rows(docstrings: Iterable[Docstring], unseen: set[str]) -> list[Row]:
    """Texts for the base model, without validation texts, even as parts of other texts."""
    sentences = [text for text in unseen if len(text.split()) >= SENTENCE_WORDS]
    pieces: dict[str, str] = {}
    for docstring in docstrings:
        text = prose(docstring.text)
        whole = fingerprint(text)
        if any(sentence in whole for sentence in sentences):
            continue
        for piece in pieces_of(text):
            key = fingerprint(piece)
            if len(key.split()) >= LEAST_WORDS and key not in unseen:
                pieces.setdefault(key, piece)
    return shuffled(Row("", piece) for piece in pieces.values())


def prose(text: str) -> str:
    """The text before the first example, on one line."""
    return " ".join(_EXAMPLE.split(text, maxsplit=1)[0].split())


def shorten(text: str, characters: int) -> str:
    """At most `characters` characters, cut between words."""
    if len(text) <= characters:
        return text
    return text[:characters].rsplit(" ", 1)[0]


def pieces_of(text: str) -> Iterator[str]:
    """The text in parts of at most TEXT_CHARACTERS."""
    while text:
        piece = shorten(text, TEXT_CHARACTERS)
        yield piece
        text = text[len(piece) :].strip()


def names_a_module(prompt: str) -> bool:
    """Whether a prompt has one of the ten names, even inside a word: `XMLParser`."""
    lowered = prompt.lower()
    return any(module in lowered for module in MODULES)


def fingerprint(text: str) -> str:
    """A key that ignores case, spaces, and punctuation."""
    return " ".join(_WORDS.findall(text.lower()))


def shuffled(rows: Iterable[Row]) -> list[Row]:
    """A pseudorandom order that is the same on every machine."""

    def digest(row: Row) -> str:
        return hashlib.sha256(f"{row.prompt}\n{row.completion}".encode()).hexdigest()

    return sorted(rows, key=digest)


def seen_texts(data: Dataset) -> Iterator[str]:
    """The texts that train the tokenizer: all but the validation rows."""
    for row in (*data.base, *data.training):
        yield row.prompt + row.completion


def jsonl(rows: Iterable[Row]) -> str:
    """The rows as JSON Lines."""
    return "".join(
        json.dumps({"prompt": row.prompt, "completion": row.completion}) + "\n" for row in rows
    )
