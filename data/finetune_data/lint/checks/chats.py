"""The check of chats: the order of the roles, and the messages that the model learns."""

from __future__ import annotations

from itertools import pairwise

from finetune_data.lint.check import Check
from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import Facts
from finetune_data.lint.remarks import Remark, RowPlaces
from finetune_data.read.examples import Conversation, is_learned
from finetune_data.read.findings import counted, has_or_have


class ChatStructure(Check):
    """Unusual orders of messages. Each of them can be intended."""

    applies_to = "chats"

    def __init__(self) -> None:
        self._rows = 0
        self._with_system = 0
        self._same_role = RowPlaces()
        self._no_answer = RowPlaces()
        self._no_question = RowPlaces()
        self._tool_unanswered = RowPlaces()

    def observe(self, columns: Columns) -> None:
        for example in columns.examples:
            if isinstance(example, Conversation):
                self._observe_chat(example)

    def _observe_chat(self, chat: Conversation) -> None:
        place = f"line {chat.line}"
        roles = [message["role"] for message in chat.messages]
        self._rows += 1
        self._with_system += roles[0] in {"system", "developer"}
        if any(a == b for a, b in pairwise(roles) if a in {"user", "assistant"}):
            self._same_role.add(place)
        if not is_learned(chat.messages[-1]):
            self._no_answer.add(place)
        if roles[0] == "assistant":
            self._no_question.add(place)
        called = {
            call.get("id")
            for message in chat.messages[:-1]
            for call in message.get("tool_calls", [])
            if call.get("id")
        }
        if called - {message.get("tool_call_id") for message in chat.messages}:
            self._tool_unanswered.add(place)

    def remarks(self, facts: Facts) -> list[Remark]:
        remarks = [
            *_warning("same-role", self._same_role, "two consecutive messages of one role"),
            *_warning("no-answer", self._no_answer, "a last message that the model does not learn"),
            *_warning("no-question", self._no_question, "a first message from the assistant"),
            *_warning("tool-unanswered", self._tool_unanswered, "a tool call without its result"),
        ]
        if 0 < self._with_system < self._rows:
            without = self._rows - self._with_system
            message = (
                f"{without:,} of {self._rows:,} chats {has_or_have(without)} no system message, "
                "but the others do"
            )
            remarks.append(Remark("system-mixed", "advice", message, without))
        return remarks


def _warning(check: str, found: RowPlaces, what: str) -> list[Remark]:
    if not found.count:
        return []
    message = f"{counted(found.count, 'chat')} {has_or_have(found.count)} {what}"
    return [Remark(check, "warning", message, found.count, found.places)]
