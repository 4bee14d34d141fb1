"""Real text that is nobody's and that every machine has: the standard library's documentation.

From the docstrings of ten of its modules come two sets of rows. The base model reads all of them,
with an empty prompt; the second FineTune learns to tell from a function's docstring which of the
ten modules it is from. The sources are read with `ast`, never imported, and every choice hangs on a
hash of the text, so one Python version gives the same rows on every machine. What validates is in
no pre-training text either.
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

# Ten modules with a hundred docstrings and more in every Python from 3.11 on.
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
# Debian ships tests apart: reading them would make the rows depend on what is installed.
NOT_READ = frozenset({"test", "tests"})

SEPARATOR = "\n\nmodule:"
PROMPT_CHARACTERS = 160  # of the docstring; a byte-level token is at least one character
TEXT_CHARACTERS = 240  # of a pre-training row
ROWS_A_MODULE = 170  # no class far above the others: the majority share stays near a tenth
LEAST_WORDS = 3  # of a row: a shorter text says nothing
SENTENCE_WORDS = 8  # a text of so many words is not there twice by chance
VALIDATION_SHARE = 0.22

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_EXAMPLE = re.compile(r"\n\s*>>>|\n\s*Examples?\b")
_WORDS = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Docstring:
    """One docstring and where it stands."""

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
    """Everything that is uploaded; the two halves of the classification share no prompt."""

    base: list[Row]
    training: list[Row]
    validation: list[Row]

    @property
    def majority_share(self) -> float:
        """What always saying the most frequent module would reach on the validation rows."""
        counts = Counter(row.module for row in self.validation)
        return max(counts.values()) / len(self.validation)


def build_dataset(library: Path | None = None) -> Dataset:
    """Read the standard library and make all three files' rows."""
    docstrings = list(read_docstrings(library or Path(sysconfig.get_path("stdlib"))))
    training, validation = split(classification_rows(docstrings))
    unseen = {fingerprint(row.prompt.removesuffix(SEPARATOR)) for row in validation}
    return Dataset(base_rows(docstrings, unseen), training, validation)


def read_docstrings(library: Path) -> Iterator[Docstring]:
    """Every docstring of the ten modules, in the order of paths and lines."""
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
    """Module, classes, functions, in the order of lines; expressions are not looked into."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Documented):
            yield node
        for field in ("cases", "finalbody", "orelse", "handlers", "body"):
            stack += reversed(getattr(node, field, None) or [])


def classification_rows(docstrings: Iterable[Docstring]) -> list[Row]:
    """One row a function's docstring: none that names a module, none that two modules share."""
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
    """Training and validation, the same share of every module; a prompt is in one of them only."""
    training: list[Row] = []
    validation: list[Row] = []
    for module in MODULES:
        own = shuffled(row for row in rows if row.module == module)
        cut = round(len(own) * VALIDATION_SHARE)
        validation += own[:cut]
        training += own[cut:]
    return shuffled(training), shuffled(validation)


def base_rows(docstrings: Iterable[Docstring], unseen: set[str]) -> list[Row]:
    """Texts for the base model, without what validates later, not even inside another text."""
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
    """The words before the first example, on one line."""
    return " ".join(_EXAMPLE.split(text, maxsplit=1)[0].split())


def shorten(text: str, characters: int) -> str:
    """At most so many characters, cut between words."""
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
    """Any of the ten names, also inside a word or a dotted path: `logging.Logger`, `XMLParser`."""
    lowered = prompt.lower()
    return any(module in lowered for module in MODULES)


def fingerprint(text: str) -> str:
    """Texts that differ in case, spaces or punctuation only are the same text."""
    return " ".join(_WORDS.findall(text.lower()))


def shuffled(rows: Iterable[Row]) -> list[Row]:
    """An order that looks random and is the same everywhere."""

    def digest(row: Row) -> str:
        return hashlib.sha256(f"{row.prompt}\n{row.completion}".encode()).hexdigest()

    return sorted(rows, key=digest)


def seen_texts(data: Dataset) -> Iterator[str]:
    """What the tokenizer may learn from: everything but the validation rows."""
    for row in (*data.base, *data.training):
        yield row.prompt + row.completion


def jsonl(rows: Iterable[Row]) -> str:
    """The rows as `prepare` reads them."""
    return "".join(
        json.dumps({"prompt": row.prompt, "completion": row.completion}) + "\n" for row in rows
    )
