"""The sentences of the product's packages about each Reason, for the page of reasons.

Those of the operator, the storage package, and the data package come from their message catalogs.
The trainer's are read from the syntax trees of its source code.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from docs.generator import catalog
from finetune_api.errors import Audience
from finetune_api.names import Reason
from finetune_data import failures
from finetune_storage.messages import TEXTS, ProblemContext, render

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("serving", "trainer")
NAMES = {value: key for key, value in vars(Reason).items() if key.isupper()}
GAP = catalog.GAP

Texts = dict[str, str]


@dataclass(frozen=True)
class Sentence:
    """A message about a reason; `...` stands for a name or a number."""

    reason: str
    message: str
    hint: str = ""
    param: str = ""


def reasons() -> dict[str, str]:
    """Map each reason to its name in the code, in the code's order."""
    return NAMES


@cache
def sentences() -> tuple[Sentence, ...]:
    """All messages about reasons."""
    found = [*_of_operator(), *_of_storage(), *_of_data()]
    for tree in _trees():
        found += _of_module(tree)
    complete = (item for item in found if _is_complete(item.message))
    return tuple(dict.fromkeys(complete))


def _of_operator() -> Iterator[Sentence]:
    for message in catalog.status_messages():
        yield Sentence(message.reason, message.message)
    for error in catalog.errors():
        yield Sentence(error.code, error.message, error.hint or "", error.param or "")


def _of_storage() -> Iterator[Sentence]:
    context = ProblemContext(*[GAP] * len(ProblemContext.__dataclass_fields__))
    for problem in TEXTS:
        failure = render(problem, context, Audience.POD)
        yield Sentence(failure.code, failure.message, failure.hint or "")


class _Gap(str):
    """An argument of a message that is printed as a gap."""

    __slots__ = ()
    revision = GAP

    def __repr__(self) -> str:
        return GAP


_Gap.__name__ = GAP


def _of_data() -> Iterator[Sentence]:
    special = {"audience": Audience.POD, "lines": None, "log": None}
    for name, function in vars(failures).items():
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        names = inspect.signature(function).parameters
        failure = function(**{each: special.get(each, _Gap(GAP)) for each in names})
        param = "" if failure.param == GAP else failure.param or ""
        yield Sentence(failure.code, failure.message, failure.hint or "", param)


def _of_module(tree: ast.Module) -> Iterator[Sentence]:
    """Calls with a Reason and a text, such as `DataError.of(Reason.INVALID_DATA, "...")`."""
    texts = _assigned(tree.body)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    wrappers = {function.name: function for function in functions}
    for function in functions:
        known = texts | _assigned(ast.walk(function))
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and (reason := _reason_of(node)):
                yield _sentence(reason, node, known, wrappers)


def _sentence(
    reason: str, call: ast.Call, texts: Texts, wrappers: dict[str, ast.FunctionDef]
) -> Sentence:
    keywords = {item.arg: _text(item.value, texts) for item in call.keywords if item.arg}
    positional = [_text(argument, texts) for argument in call.args]
    message = keywords.get("message") or next(filter(None, reversed(positional)), "")
    wrapper = wrappers.get(call.func.id) if isinstance(call.func, ast.Name) else None
    if wrapper is not None:
        names = [argument.arg for argument in wrapper.args.args]
        message = (
            _wrapped(wrapper, dict(zip(names, positional, strict=False)) | keywords) or message
        )
    return Sentence(reason, message, keywords.get("hint", ""), keywords.get("param", ""))


def _wrapped(wrapper: ast.FunctionDef, arguments: Texts) -> str:
    """The text that a function of the module makes of an argument, such as the subject."""
    for node in ast.walk(wrapper):
        if isinstance(node, ast.JoinedStr):
            values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            used = {value.id for value in values if isinstance(value, ast.Name)}
            if any(arguments.get(name) for name in used):
                return _text(node, {}, arguments)
    return ""


def _is_complete(text: str) -> bool:
    return len(re.findall(r"[a-z]{2,}", text)) >= 3


def _trees() -> Iterator[ast.Module]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def _assigned(nodes: Iterable[ast.AST]) -> Texts:
    """Texts by the names of their variables; the longest if there are several."""
    found: Texts = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, text = node.targets[0].id, _text(node.value, {})
            found[name] = max(found.get(name, ""), text, key=len)
    return found


def _reason_of(call: ast.Call) -> str:
    candidates = [*call.args, *(item.value for item in call.keywords if item.arg == "code")]
    return next(filter(None, map(_reason, candidates)), "")


def _reason(node: ast.expr) -> str:
    """The value of `Reason.NAME`."""
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Reason"
    ):
        return str(getattr(Reason, node.attr))
    return ""


def _text(node: ast.expr, texts: Texts, arguments: Texts | None = None) -> str:
    """The text of an expression, with `...` for values; empty if it has none.

    arguments: the texts of names inside f-strings, if they are known.
    """
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.Name):
        return texts.get(node.id, "")
    if isinstance(node, ast.JoinedStr):
        joined = "".join(_part(part, arguments or {}) for part in node.values)
        return re.sub(r"\.{4,}", GAP, joined)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, texts, arguments) + _text(node.right, texts, arguments)
    if isinstance(node, ast.IfExp):
        return _text(node.body, texts, arguments)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.JoinedStr | ast.BinOp):
        return _text(node.value, texts, arguments)
    return ""


def _part(part: ast.expr, arguments: Texts) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    name = part.value.id if isinstance(part.value, ast.Name) else ""
    return arguments.get(name) or GAP
