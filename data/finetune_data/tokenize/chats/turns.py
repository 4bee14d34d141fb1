"""The turns that a model learns in a conversation, as text, each verified against the template.

The context of a turn is exactly the generation prompt for the messages before it. The learned text
is the rest of the turn, with the token that ends it. Some templates write it only once another
message follows, and some never do: then the end-of-sequence token is added.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

from finetune_data.read.examples import Conversation, Message, is_learned
from finetune_data.read.findings import Finding, detail
from finetune_data.tokenize.chats.control_tokens import ControlToken, TurnEnds
from finetune_data.tokenize.chats.parts import (
    LostPart,
    find_lost_answer,
    find_lost_context,
    lost_call,
    lost_tool,
    split_reasoning,
)
from finetune_data.tokenize.chats.proofs import ProvingRenderer
from finetune_data.tokenize.chats.rendering import (
    CALL_FORMS,
    PLAIN_FORMS,
    Form,
    Quoting,
    Renderer,
    RenderError,
)
from finetune_data.tokenize.chats.source import TemplateSource
from finetune_data.tokenize.encoded import How

CODE = "chat-template"  # of a finding
_FOLLOW_UP = {"role": "user", "content": "Next"}
_PROBE = "Probe"

# A generation prompt that opens a block of reasoning, and what closes the block.
OPENED = re.compile(r"(<think>|<thinking>|<reasoning>|\[THINK\]|<\|START_THINKING\|>)(\s*)\Z")
CLOSING = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
}


class Turn(NamedTuple):
    """One answer. `learned` follows `context`; texts of control tokens in messages are quoted.

    end: the token that ends it, which is the end of `learned` unless `how` is "added".
    """

    context: str
    learned: str
    end: ControlToken
    how: How

    @property
    def text(self) -> str:
        return self.context + self.learned


class _RefusalError(Exception):
    """Why a conversation cannot be learned under the template.

    at: the message; the number of messages for what is checked after all of them.
    """

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


class ChatTemplate:
    """A base model's template, what ends a turn in it, and how it treats control tokens.

    tokens: all added tokens of the tokenizer. stop_ids: those that end generation according to the
    base model, among them `eos`. names: `bos_token` and the others that a template can use. model:
    the name of the base model, for messages.
    """

    def __init__(
        self,
        source: TemplateSource,
        names: dict[str, str],
        tokens: Sequence[ControlToken],
        *,
        eos: ControlToken,
        stop_ids: frozenset[int],
        model: str = "",
    ) -> None:
        self._source = source
        self._eos = eos
        self._renderer = Renderer(source, names, model)
        self.ends = TurnEnds.observe(self._renderer, tokens, stop_ids | {eos.id})
        quoted = {token.text for token in tokens if token.is_special} | set(self.ends.stops)
        self.quoting = Quoting(sorted(quoted))

    @property
    def identity(self) -> str:
        """Everything that determines the texts of turns and their ends."""
        return f"{self._source} {sorted(self.ends.stops)} {self._eos.id}"

    def prompt(self, chat: Conversation) -> str | Finding:
        """The generation prompt for all messages, as a server renders it, with quoted texts."""
        quoted = self.quoted(chat)
        forms = _forms(quoted)
        for form in forms:
            try:
                return self._renderer.render(quoted, form, is_prompt=True)
            except RenderError as error:
                if form is forms[-1]:
                    return _refused(chat, error)
        raise AssertionError("there is at least one form")

    def turns(self, chat: Conversation) -> list[Turn] | Finding:
        """The turns that the model learns; a Finding if the template refuses or loses a part."""
        quoted = self.quoted(chat)
        problems: list[Exception] = []
        for form in _forms(quoted):
            try:
                return self._turns(quoted, form)
            except (_RefusalError, RenderError) as error:
                problems.append(error)
        lost = [problem for problem in problems if isinstance(problem, _RefusalError)]
        # of the form in which the template writes most of the conversation
        return _refused(chat, max(lost, key=lambda it: it.at) if lost else problems[0])

    def render(self, quoted: Conversation, until: int) -> str | None:
        """The messages before `until` as text; None if the template refuses them."""
        return self._renderer.try_render(quoted, Form(), until)

    def proving(self) -> tuple[ChatTemplate, ProvingRenderer]:
        """The same template for conversations of placeholders, and the renderer that proves."""
        other = copy(self)
        other._renderer = renderer = ProvingRenderer(self._renderer)
        return other, renderer

    def quoted(self, chat: Conversation) -> Conversation:
        """The conversation without control tokens in its texts."""
        quote = self.quoting.quote
        return chat._replace(messages=quote(chat.messages), tools=quote(chat.tools))

    def _turns(self, chat: Conversation, form: Form) -> list[Turn]:
        learned = [index for index, it in enumerate(chat.messages) if is_learned(it)]
        found = [self._turn(chat, form, index) for index in learned]
        last = learned[-1]
        lost = find_lost_context(chat.messages[:last], chat.tools, found[-1].context)
        if lost is not None:  # some templates write a message only while it is the last one
            contexts = "\n".join(turn.context for turn in found)
            lost = find_lost_context(chat.messages[:last], chat.tools, contexts)
        if lost is None and chat.tools and self._ignores_tools(chat, form, learned[0], found[0]):
            lost = lost_tool(0)
        if lost is not None:
            raise _RefusalError(self._sentence(lost), len(chat.messages))
        return found

    def _turn(self, chat: Conversation, form: Form, index: int) -> Turn:
        try:
            context = self._renderer.render(chat, form, index, is_prompt=True)
        except RenderError as error:
            if index:
                raise
            raise _RefusalError(
                "messages[0] is an assistant message, but the base model's chat template writes no "
                f"prompt without a message before it ({detail(error)}): add a user message, or set "
                "its weight to 0",
                index,
            ) from error
        whole = self._renderer.render(chat, form, index + 1)
        written = self._written(chat, form, index, context, whole)
        lost = find_lost_answer(chat.messages[index], index, written)
        lost = lost or self._find_ignored_call(chat, form, index, whole)
        if lost is not None:
            raise _RefusalError(self._sentence(lost), index)
        return self._ended(chat, form, index, context, written)

    def _written(self, chat: Conversation, form: Form, index: int, context: str, whole: str) -> str:
        """The text that the template writes after the generation prompt, for one answer."""
        opened = OPENED.search(context)
        if opened is not None and whole.startswith(context[: opened.start()]):
            rest = whole[opened.start() :]
            tag, space = opened.groups()
            if rest.startswith(tag):
                rest = rest[len(tag) :]
                rest = rest.removeprefix(space) if rest.startswith(space) else rest.lstrip()
            if CLOSING[tag] in rest:
                return rest
            # the answer has no block of reasoning: close the one that the prompt opens
            reasoning, _ = split_reasoning(chat.messages[index])
            closing = f"{space}{CLOSING[tag]}{space * 2}"
            return f"{reasoning.strip()}{closing}{rest.lstrip() if space else rest}"
        if whole.startswith(context):
            return whole[len(context) :]
        written = self._after_last_message(chat, form, index, context, whole)
        if written is not None:
            return written
        raise _RefusalError(
            f"the base model's chat template writes messages[{index}] otherwise than its "
            "generation prompt begins, so no server would ask for this answer: use another base "
            "model or another chat template",
            index,
        )

    def _after_last_message(
        self, chat: Conversation, form: Form, index: int, context: str, whole: str
    ) -> str | None:
        """The text behind the end of the context, where the two texts begin differently.

        Some templates write the messages before an answer differently once the answer follows. The
        longest end of the context that is in the other text is the same place in both, if it
        begins within the last message. None if there is none.
        """
        asked = [*chat.messages[: index - 1], chat.messages[index - 1] | {"content": _PROBE}]
        probed = self._renderer.try_render(chat._replace(messages=asked), form, is_prompt=True)
        if probed is None or _PROBE not in probed:
            return None
        behind = probed.rpartition(_PROBE)[2]
        if not behind.strip() or not context.endswith(behind):
            return None
        lengths = range(len(behind), len(context))
        found = bisect_left(lengths, True, key=lambda it: context[-it - 1 :] not in whole)
        common = context[-lengths[found] :] if found < len(lengths) else context
        return whole.rpartition(common)[2] if common in whole else None

    def _find_ignored_call(
        self, chat: Conversation, form: Form, index: int, whole: str
    ) -> LostPart | None:
        """The first tool call of a message without which the text is the same."""
        message = chat.messages[index]
        calls = message.get("tool_calls") or []
        for at in range(len(calls)):
            others = {"tool_calls": calls[:at] + calls[at + 1 :]} if len(calls) > 1 else {}
            bare = {key: item for key, item in message.items() if key != "tool_calls"} | others
            messages = [*chat.messages[:index], bare]
            if self._renderer.try_render(chat._replace(messages=messages), form) == whole:
                return lost_call(message, f"messages[{index}]", at, "name", "the tool call")
        return None

    def _ignores_tools(self, chat: Conversation, form: Form, index: int, turn: Turn) -> bool:
        """Whether the context of the answer is the same without the tools."""
        bare = chat._replace(tools=None)
        return self._renderer.try_render(bare, form, index, is_prompt=True) == turn.context

    def _ended(
        self, chat: Conversation, form: Form, index: int, context: str, written: str
    ) -> Turn:
        end = self._end(written)
        if end is not None:
            at, token = end
            return Turn(context, written[: at + len(token.text)], token, "template")
        text = written.rstrip()
        content = chat.messages[index]["content"]
        if not text.endswith(content.rstrip()):
            at = written.rfind(content.strip())
            stop = self.ends.first_stop(written, at + len(content.strip())) if at >= 0 else None
            if stop is not None:
                at, token = stop
                return Turn(context, written[: at + len(token.text)], token, "template")
        elif written.startswith(content, len(text) - len(content.rstrip())):
            text = written[: len(text) - len(content.rstrip()) + len(content)]
        following = self._following(chat, form, index, context + text)
        if following is not None:
            return Turn(context, following[0][len(context) :], following[1], "following")
        return Turn(context, text, self._eos, "added")

    def _end(self, written: str) -> tuple[int, ControlToken] | None:
        """The position of the token that ends the turn, and the token.

        Some templates write the end of the conversation after it, and calls have tokens of their
        own before it.
        """
        plain = self.ends.plain
        trimmed = written.rstrip()
        if plain is not None and trimmed.endswith(plain.text):
            at = len(trimmed) - len(plain.text)
            before = trimmed[:at].rstrip()
            if not before or before[-1] not in self.ends.last_characters:
                return at, plain
        found = self.ends.trailing(written)
        stops = [(at, token) for at, token in found if token.text in self.ends.stops]
        if stops or plain is None:  # without an end of its own, it cannot be the end of a call
            return stops[0] if stops else None
        return found[-1] if found else None

    def _following(
        self, chat: Conversation, form: Form, index: int, text: str
    ) -> tuple[str, ControlToken] | None:
        """The text up to a token that ends the turn once another message follows, and the token."""
        before, after = chat.messages[: index + 1], chat.messages[index + 1 : index + 2]
        for follower in (*after, *_results(chat.messages[index]), _FOLLOW_UP):
            followed = chat._replace(messages=[*before, follower])
            longer = self._renderer.try_render(followed, form)
            if longer is None or not longer.startswith(text):
                continue
            rest = longer[len(text) :].lstrip()
            at = len(longer) - len(rest)
            tokens = [token for known, token in self.ends.stops.items() if rest.startswith(known)]
            if tokens:
                token = max(tokens, key=lambda it: len(it.text))
                return longer[: at + len(token.text)], token
        if self.ends.is_late and self.ends.plain is not None:  # earlier turns lose their reasoning
            return text + self.ends.plain.text, self.ends.plain
        return None

    def _sentence(self, lost: LostPart) -> str:
        what = self.quoting.plain(lost.what)
        return (
            f"{lost.key}: {what} is not in the text that the base model's chat template writes: "
            f"{lost.remedy}"
        )


def _results(message: Message) -> list[Message]:
    """A result for the first tool call of a message."""
    return [
        {**_FOLLOW_UP, "role": "tool", "name": call["function"]["name"]}
        | ({"tool_call_id": call["id"]} if "id" in call else {})
        for call in (message.get("tool_calls") or [])[:1]
    ]


def _forms(chat: Conversation) -> tuple[Form, ...]:
    has_calls = any(message.get("tool_calls") for message in chat.messages)
    return CALL_FORMS if has_calls else PLAIN_FORMS


def _refused(chat: Conversation, error: Exception) -> Finding:
    if isinstance(error, _RefusalError):
        return Finding(CODE, str(error), chat.line)
    message = f"the base model's chat template refuses this conversation: {detail(error)}"
    return Finding(CODE, message, chat.line)
