"""Renders a chat template with texts that are unknown, to prove what it writes for any texts.

A template that only puts the texts of messages next to other text writes the same around all texts.
Here it is rendered with values that have no content: they can be joined and printed. A question
about them is answered as for a usual text, and the answer becomes an assumption that each real text
must meet. Everything else that a template could do with a text refuses the proof, because only the
operations that are listed here are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError, Undefined, nodes
from jinja2.compiler import Frame
from jinja2.ext import Extension
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

PLACEHOLDER = "\ue004{}\ue005"
GAP = re.compile("\ue004([0-9]+)\ue005")

# What these filters and tests do with lists and objects does not depend on the texts in them, or
# they ask the texts themselves.
_STRUCTURAL = frozenset(
    {"list", "first", "last", "length", "count", "reverse", "default", "d", "items"}
    | {"select", "reject", "selectattr", "rejectattr", "map"}
)
_LOCALS = frozenset({"_loop_vars", "_block_vars"})  # that Jinja passes with each call
_COMPARING = frozenset({"in", "eq", "==", "equalto", "ne", "!="})
_TESTS_OF_TEXTS = {
    **dict.fromkeys(("defined", "string", "iterable", "sequence"), True),
    **dict.fromkeys(("undefined", "none", "mapping", "boolean", "true", "false"), False),
    **dict.fromkeys(("number", "integer", "float", "callable"), False),
}


class UnprovableError(Exception):
    """What a template does with a text that can depend on its content."""


class Proof:
    """Whether a template writes the same around any texts, and what is assumed of the texts.

    All are assumed to be trimmed and not empty. absent: texts that are in none of them; others:
    texts that none of them equals; dates: of today, by their format.
    """

    def __init__(self) -> None:
        self.doubt: str | None = None  # the first reason why nothing is proved
        self.absent: set[str] = set()
        self.others: set[str] = set()
        self.dates: dict[str, str] = {}

    def refuse(self, what: str) -> NoReturn:
        """Give up. The reason stays, because code below a template can catch the error."""
        self.doubt = self.doubt or what
        raise UnprovableError(what)


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: UnknownText, *_: object, **__: object) -> NoReturn:
        self._proof.refuse(name)

    return refuse


class UnknownText:
    """A text with gaps, each of which can be any text.

    It is no `str`, so that code that expects one fails or asks here.
    """

    METHODS = frozenset(
        {"strip", "lstrip", "rstrip", "startswith", "endswith", "split", "rsplit", "replace"}
    )

    def __init__(self, written: str, proof: Proof) -> None:
        self._written = written  # with placeholders
        self._proof = proof

    @property
    def written(self) -> str:
        return self._written

    def _is_gap(self) -> bool:
        return GAP.fullmatch(self._written) is not None

    def __add__(self, other: object) -> UnknownText:
        return self._joined(self, other)

    def __radd__(self, other: object) -> UnknownText:
        return self._joined(other, self)

    def _joined(self, *parts: object) -> UnknownText:
        texts = [part._written if isinstance(part, UnknownText) else part for part in parts]
        if any(type(text) is not str for text in texts):  # also Markup, which escapes
            self._proof.refuse("+")
        return UnknownText("".join(map(str, texts)), self._proof)

    def __bool__(self) -> bool:
        return True  # no gap is empty

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        if other is None or isinstance(other, Undefined) or type(other) in {bool, int, float}:
            return False
        if type(other) is not str or not self._is_gap():
            self._proof.refuse("==")
        self._proof.others.add(other)
        return False

    def __contains__(self, part: object) -> bool:
        if type(part) is not str or not self._is_gap():
            self._proof.refuse("in")
        return self._has(part)

    def _has(self, part: str) -> bool:
        """Whether the only gap has a text, which no gap must have."""
        if not part:
            return True
        self._proof.absent.add(part)
        return False

    def startswith(self, *parts: object) -> bool:
        return self._asked("startswith", parts)

    def endswith(self, *parts: object) -> bool:
        return self._asked("endswith", parts)

    def _asked(self, name: str, parts: tuple[object, ...]) -> bool:
        if len(parts) != 1 or type(parts[0]) is not str or not self._is_gap():
            self._proof.refuse(name)
        return self._has(parts[0])

    def split(self, part: object = None, limit: object = -1) -> list[UnknownText]:
        if type(part) is not str or not part or type(limit) is not int or not self._is_gap():
            self._proof.refuse("split")
        self._has(part)
        return [self]

    rsplit = split

    def replace(self, part: object, other: object) -> UnknownText:
        if type(part) is not str or not part or type(other) is not str or not self._is_gap():
            self._proof.refuse("replace")
        self._has(part)
        return self

    def strip(self, characters: object = None) -> UnknownText:
        return self._trimmed("strip", characters)

    def lstrip(self, characters: object = None) -> UnknownText:
        return self._trimmed("lstrip", characters)

    def rstrip(self, characters: object = None) -> UnknownText:
        return self._trimmed("rstrip", characters)

    def _trimmed(self, name: str, characters: object) -> UnknownText:
        """Without white space around it, of which a gap has none: it ends at a gap."""
        if characters is not None and (type(characters) is not str or characters.strip()):
            self._proof.refuse(name)
        return UnknownText(getattr(self._written, name)(characters), self._proof)

    def __getattr__(self, name: str) -> NoReturn:
        self._proof.refuse(f"the attribute {name}")

    __hash__ = _refusing("hash")
    __str__ = _refusing("str")
    __repr__ = _refusing("repr")
    __format__ = _refusing("format")
    __len__ = _refusing("length")
    __iter__ = _refusing("iteration")
    __reversed__ = _refusing("reverse")
    __getitem__ = _refusing("a part of a text")
    __call__ = _refusing("call")
    __int__ = __float__ = __index__ = __complex__ = __round__ = __bytes__ = _refusing("a number")
    __lt__ = __le__ = __gt__ = __ge__ = _refusing("order")
    __mul__ = __rmul__ = __mod__ = __rmod__ = _refusing("an operator")


class _Generator(NativeCodeGenerator):
    """Code that joins values with `environment.concat`, also for the operator `~`."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_EvalContextModifier(  # noqa: N802
        self, node: nodes.EvalContextModifier, frame: Frame
    ) -> None:
        raise UnprovableError("autoescape")


class _Environment(ImmutableSandboxedEnvironment):
    """The environment of a template, in which texts can be unknown."""

    code_generator_class = _Generator

    def __init__(self, original: Environment, proof: Proof) -> None:
        super().__init__(
            trim_blocks=original.trim_blocks,
            lstrip_blocks=original.lstrip_blocks,
            extensions=[type(extension) for extension in original.extensions.values()],
        )
        if original.autoescape or original.finalize:
            proof.refuse("autoescape")
        self.proof = proof
        self.concat = self._concat  # type: ignore[method-assign]
        self.globals.update(original.globals, strftime_now=self._strftime_now)
        self._strftime: Any = original.globals.get("strftime_now")
        self.globals["lipsum"] = lambda *_, **__: proof.refuse("lipsum")
        self.filters = {name: self._filter(name, it) for name, it in original.filters.items()}
        self.filters |= {"trim": self._trim, "string": self._string}
        tests: dict[str, Any] = original.tests
        self.tests = {name: self._test(name, it) for name, it in tests.items()}

    def _concat(self, values: Iterable[Any]) -> Any:
        parts = [it if isinstance(it, UnknownText) else str(it) for it in values]
        written = "".join(it.written if isinstance(it, UnknownText) else it for it in parts)
        if any(isinstance(it, UnknownText) for it in parts):
            return UnknownText(written, self.proof)
        return written

    def _strftime_now(self, form: object) -> str:
        if type(form) is not str or self._strftime is None:
            self.proof.refuse("strftime_now")
        return self.proof.dates.setdefault(form, self._strftime(form))

    def _filter(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        first = _first_argument(original)

        @wraps(original)
        def checked(*arguments: Any, **named: Any) -> Any:
            is_free = name in _STRUCTURAL or not _have_unknown(arguments[first:], named)
            if name == "random" or not is_free:
                self.proof.refuse(f"the filter {name}")
            return original(*arguments, **named)

        return checked

    def _trim(self, value: Any, chars: Any = None) -> Any:
        if isinstance(value, UnknownText):
            return value.strip(chars)
        if _have_unknown((value, chars), {}):
            self.proof.refuse("the filter trim")
        return str(value).strip(chars)

    def _string(self, value: Any) -> Any:
        return value if isinstance(value, UnknownText) else str(value)

    def _test(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        first = _first_argument(original)

        @wraps(original)
        def checked(*arguments: Any, **named: Any) -> Any:
            if name not in _COMPARING and _have_unknown(arguments[first:], named):
                if name not in _TESTS_OF_TEXTS:
                    self.proof.refuse(f"the test {name}")
                if isinstance(arguments[first], UnknownText):
                    return _TESTS_OF_TEXTS[name]
            return original(*arguments, **named)

        return checked

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, UnknownText):
            if attribute not in UnknownText.METHODS:
                self.proof.refuse(f"the attribute {attribute}")
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, UnknownText) or _is_unknown(argument):
            self.proof.refuse("a part of a text")
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        self = __self
        named = {name: it for name, it in kwargs.items() if name not in _LOCALS}
        if _have_unknown(args, named) and not (
            isinstance(__obj, Macro)
            or isinstance(getattr(__obj, "__self__", None), Extension)
            or any(__obj is self.globals.get(name) for name in ("namespace", "dict"))
        ):
            self.proof.refuse("a text as an argument")
        return super().call(__context, __obj, *args, **kwargs)


def _have_unknown(arguments: Iterable[Any], named: Mapping[str, Any]) -> bool:
    return any(map(_is_unknown, arguments)) or any(map(_is_unknown, named.values()))


def _is_unknown(value: Any) -> bool:
    """Whether a value is or can have an unknown text."""
    if value is None or isinstance(value, str | int | float | Undefined):
        return False
    if isinstance(value, list | tuple):
        return any(map(_is_unknown, value))
    if isinstance(value, dict):
        return any(_is_unknown(it) for pair in value.items() for it in pair)
    return True


def _first_argument(function: Callable[..., Any]) -> int:
    """1 if Jinja passes its own state before the arguments of a template."""
    return int(hasattr(function, "jinja_pass_arg"))


class UnknownTemplate:
    """A template of an environment, for messages with unknown texts."""

    def __init__(self, source: str, original: Environment, proof: Proof) -> None:
        """Raises an error if the source is not one that can be proved."""
        self._proof = proof
        self._template = _Environment(original, proof).from_string(source)

    def render(self, variables: Mapping[str, Any]) -> str | None:
        """The text that the template writes, with a placeholder for each gap.

        None if it refuses the messages. Both are so for all texts that meet the assumptions, unless
        the proof has a doubt. Can raise any error.
        """
        try:
            found: Any = self._template.render(variables)
        except TemplateError as error:
            if type(error) is TemplateError:  # of `raise_exception`
                return None
            raise
        return found.written if isinstance(found, UnknownText) else str(found)
