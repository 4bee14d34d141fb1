"""What the source code itself says: sentences beside a Reason, and the words of each Event.

Read from the syntax trees, so that nothing has to be imported and nothing is written twice.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from finetune_api.names import Reason

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("operator", "storage", "data", "trainer")
SAYING = frozenset({"say", "say_again", "say_turn"})  # Draft's methods
NAMES = {value: key for key, value in vars(Reason).items() if key.isupper()}


@dataclass(frozen=True)
class Saying:
    """One place where the code speaks of a reason; `...` stands where it fills something in."""

    reason: str
    message: str
    hint: str
    param: str


@dataclass(frozen=True)
class Told:
    """One line of a FineTune's story."""

    reason: str
    message: str
    level: str


def reasons() -> dict[str, str]:
    """Value -> name in the code, in the code's order."""
    return NAMES


@cache
def sayings() -> tuple[Saying, ...]:
    """Every place that names a Reason beside a sentence, and every hint that a table holds."""
    found = []
    for tree in _trees():
        texts = _assigned(tree.body)
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for function in functions:
            known = texts | _assigned(ast.walk(function))
            found += [made for node in ast.walk(function) if (made := _saying(node, known))]
        for node in (node for part in tree.body for node in ast.walk(part)):
            if isinstance(node, ast.Tuple) and len(node.elts) == 2:
                reason, text = _reason(node.elts[0]), _text(node.elts[1], texts)
                found += [Saying(reason, text, "", "")] if reason and text else []
            elif isinstance(node, ast.If):
                found += _branch(node, texts)
            elif isinstance(node, ast.Dict):
                hints = [(_reason(key), value) for key, value in _items(node)]
                found += [Saying(name, "", _text(value, {}), "") for name, value in hints if name]
    unique = dict.fromkeys(found)
    return tuple(said for said in unique if _says_something(said.message) or said.hint)


def _saying(node: ast.AST, texts: dict[str, str]) -> Saying | None:
    if not isinstance(node, ast.Call):
        return None
    keywords = {item.arg: _text(item.value, texts) for item in node.keywords if item.arg}
    sentences = [_text(argument, texts) for argument in node.args]
    message = keywords.get("message") or next(filter(None, reversed(sentences)), "")
    reason = _reason_of(node)
    hint, param = keywords.get("hint", ""), keywords.get("param", "")
    return Saying(reason, message, hint, param) if reason else None


def _branch(node: ast.If, texts: dict[str, str]) -> list[Saying]:
    """`if reason == Reason.NAME: ... return "..."`."""
    test, last = node.test, node.body[-1]
    if not (isinstance(test, ast.Compare) and isinstance(last, ast.Return) and last.value):
        return []
    reason, text = _reason(test.comparators[0]), _text(last.value, texts)
    return [Saying(reason, text, "", "")] if reason and text else []


def _items(node: ast.Dict) -> Iterator[tuple[ast.expr, ast.expr]]:
    return ((key, value) for key, value in zip(node.keys, node.values, strict=True) if key)


def story() -> list[Told]:
    """Every Event that the operator tells of a FineTune."""
    found = []
    for tree in _trees(("operator",)):
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                if not (isinstance(call.func, ast.Attribute) and call.func.attr in SAYING):
                    continue
                reason = _reason(call.args[0]) or _text(call.args[0], {})
                level = _text(call.args[2], {}) if len(call.args) > 2 else "info"
                message = _text(call.args[1], {}) or "..."
                given = [] if _says_something(message) else _given_to(function.name, tree)
                found += [Told(reason, words, level) for words in given or [message]]
    return list(dict.fromkeys(found))


def _given_to(function: str, tree: ast.Module) -> list[str]:
    """The texts that a function is called with: its own words are made of them."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    mine = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function]
    return [f"{text}: ..." for call in mine if (text := _text(call.args[-1], {}))]


def _says_something(text: str) -> bool:
    return len(re.findall(r"[a-z]{2,}", text)) >= 3


def _trees(rooms: tuple[str, ...] = ROOMS) -> Iterator[ast.Module]:
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """Texts by the name that they are given; of two the longer one."""
    found: dict[str, str] = {}
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


def _text(node: ast.expr, texts: dict[str, str]) -> str:
    """A text as it is written, `...` where a value is put in; nothing for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.Name):
        return texts.get(node.id, "")
    if isinstance(node, ast.JoinedStr):
        parts = (
            str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values
        )
        return re.sub(r"\.{4,}", "...", "".join(parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, texts) + _text(node.right, texts)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.JoinedStr | ast.BinOp):
        return _text(node.value, texts)
    return ""
