"""Rules for chats: who speaks, in which order, and what is learned."""

from __future__ import annotations

from itertools import pairwise

from finetune_data.lint.columns import Columns, is_answer
from finetune_data.lint.facts import Facts
from finetune_data.lint.remarks import Places, Remark
from finetune_data.read.examples import Conversation


class Turns:
    """What is odd about the order of messages; all of it may be meant."""

    def __init__(self) -> None:
        self._rows = 0
        self._with_system = 0
        self._repeated = Places()
        self._open = Places()
        self._unprompted = Places()
        self._unanswered = Places()

    def look(self, columns: Columns) -> None:
        for example in columns.examples:
            if isinstance(example, Conversation):
                self._see(example)

    def _see(self, chat: Conversation) -> None:
        place = f"line {chat.line}"
        roles = [message["role"] for message in chat.messages]
        self._rows += 1
        self._with_system += roles[0] in {"system", "developer"}
        if any(a == b for a, b in pairwise(roles) if a in {"user", "assistant"}):
            self._repeated.add(place)
        if not is_answer(chat.messages[-1]):
            self._open.add(place)
        if roles[0] == "assistant":
            self._unprompted.add(place)
        asked = {
            call.get("id")
            for message in chat.messages[:-1]
            for call in message.get("tool_calls", [])
            if call.get("id")
        }
        if asked - {message.get("tool_call_id") for message in chat.messages}:
            self._unanswered.add(place)

    def remarks(self, facts: Facts) -> list[Remark]:
        told = [
            ("same-role", self._repeated, "have two messages of one role in a row"),
            ("no-answer", self._open, "end with a message that is not learned"),
            ("no-question", self._unprompted, "begin with the assistant"),
            ("tool-unanswered", self._unanswered, "call a tool whose answer is not there"),
        ]
        remarks = [
            Remark(name, "warning", f"{seen.count:,} chats {words}", seen.count, seen.places)
            for name, seen, words in told
            if seen.count
        ]
        if 0 < self._with_system < self._rows:
            without = self._rows - self._with_system
            message = f"{without:,} of {self._rows:,} chats have no system message, the others do"
            remarks.append(Remark("system-mixed", "advice", message, without))
        return remarks
