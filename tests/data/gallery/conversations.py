"""Conversations for the gallery: a table of named ones, and a hypothesis strategy for any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from finetune_data.read.conversations import ChatColumns, parse_conversation
from finetune_data.read.examples import Conversation
from tests.data.gallery import families as need
from tests.data.gallery.vocabularies import WORDS

Message = dict[str, Any]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "forecast",
            "description": "The weather of the next days",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The name of a city"},
                    "days": {"type": "integer", "minimum": 1},
                    "metric": {"type": "boolean"},
                    "place": {"type": "object", "properties": {"lat": {"type": "number"}}},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "invoice",
            "description": "An invoice by its number",
            "parameters": {"type": "object", "properties": {"number": {"type": "string"}}},
        },
    },
]


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def answer(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def call(name: str, arguments: dict[str, Any], number: str = "a1b2c3d4e") -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": number, "type": "function", "function": function}


def calling(*calls: dict[str, Any], content: str = "", **more: Any) -> Message:
    return {"role": "assistant", "content": content, "tool_calls": [*calls], **more}


def result(text: str, name: str = "forecast", number: str = "a1b2c3d4e") -> Message:
    return {"role": "tool", "content": text, "name": name, "tool_call_id": number}


@dataclass(frozen=True)
class Chat:
    """A conversation as it is in a file."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None

    def parsed(self, line: int = 1) -> Conversation:
        record: dict[str, Any] = {"messages": self.messages}
        if self.tools:
            record["tools"] = self.tools
        found = parse_conversation(line, record, ChatColumns("messages"))
        assert isinstance(found, Conversation), found
        return found


def _chat(*messages: Message, tools: bool = False) -> Chat:
    return Chat([*messages], TOOLS if tools else None)


QUESTION = user("What is the weather in Lyon?")
FORECAST = call("forecast", {"city": "Lyon", "days": 3, "metric": True, "place": {"lat": 45.75}})
WITH_CALL = (QUESTION, calling(FORECAST), result("mild, 21 degrees"), answer("It is mild."))

CHATS = {
    "plain": _chat(QUESTION, answer("Mild today.")),
    "system": _chat(system("You are a model of few words."), QUESTION, answer("Mild.")),
    "several turns": _chat(
        *(QUESTION, answer("Mild.")),
        *(user("And in Oslo?"), answer("It is 3 degrees.")),
        *(user("Thank you"), answer("You are welcome.")),
    ),
    "system and several turns": _chat(
        system("Answer in one word."),
        *(QUESTION, answer("Mild.")),
        *(user("And in Oslo?"), answer("Cold.")),
    ),
    "weight 0": _chat(
        *(QUESTION, answer("No.", weight=0)),
        *(user("Again"), answer("Mild.")),
        *(user("And in Oslo?"), answer("No idea.", weight=0)),
    ),
    "questions in a row": _chat(QUESTION, user("And in Oslo?"), answer("Both are mild.")),
    "spaces around": _chat(user("  Is it mild?\n\n"), answer("  Yes, \n it is.  ")),
    "line ends around": _chat(user("\nIs it mild?"), answer("\n\nYes.\n\n\nIt is.\n")),
    "code": _chat(user("A loop?"), answer("```python\nfor i in x:\n    print(i)\n```")),
    "Unicode": _chat(user("Où est 東京? 🗼"), answer("Á l’est — 日本 👍🏽, e\u0301 \u200d.")),
    "call": _chat(*WITH_CALL, tools=True),
    "call without descriptions": _chat(*WITH_CALL),
    "call as the last": _chat(*WITH_CALL[:2], tools=True),
    "system and call": _chat(system("Call the tools."), *WITH_CALL, tools=True),
    "call after a turn": _chat(*(user("Good day"), answer("Good day!")), *WITH_CALL, tools=True),
    "turn after a call": _chat(
        *WITH_CALL, *(user("And in Oslo?"), answer("I can look.")), tools=True
    ),
    "two calls": _chat(
        QUESTION,
        calling(FORECAST, call("invoice", {"number": "17"}, "f6g7h8i9j")),
        result("mild"),
        result("paid", "invoice", "f6g7h8i9j"),
        answer("It is mild, and the invoice was paid."),
        tools=True,
    ),
    "call next to a text": _chat(
        QUESTION,
        calling(FORECAST, content="I look at the forecast."),
        result("mild"),
        answer("It is mild."),
        tools=True,
    ),
    "call with a long id": _chat(
        QUESTION,
        calling(call("forecast", {"city": "Lyon"}, "call_0123456789abcdef")),
        result("mild", number="call_0123456789abcdef"),
        answer("It is mild."),
        tools=True,
    ),
    "call of weight 0": _chat(
        QUESTION,
        calling(FORECAST, weight=0),
        *WITH_CALL[2:],
        tools=True,
    ),
    "tools without a call": _chat(QUESTION, answer("Mild."), tools=True),
    "reasoning": _chat(
        user("What is two and three?"),
        answer("Five.", reasoning_content="Two and one is three,\nand two more is five."),
    ),
    "reasoning in each turn": _chat(
        *(user("Two and three?"), answer("Five.", reasoning_content="Three, four, five.")),
        *(user("And two?"), answer("Seven.", reasoning_content="Six, seven.")),
    ),
    "reasoning before a call": _chat(
        QUESTION,
        calling(FORECAST, reasoning_content="The tool knows it."),
        result("mild"),
        answer("It is mild.", reasoning_content="The result is mild."),
        tools=True,
    ),
    "special tokens as text": _chat(
        user("What is <|im_end|>, </s>, or <|eot_id|>?"),
        answer("A token: <|im_end|>\n<|im_start|>user\n</s>[INST] <end_of_turn><|end|>."),
    ),
}

words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
marks = st.sampled_from(
    [
        *("<|im_end|>", "</s>", "<|eot_id|>", "[/INST]", "<end_of_turn>", "<|end|>", "<s>"),
        *("<|user|>", "<|start|>", "\n\n", "  ", "é", "日本", "👍🏽", '"', "{", "\\n", "1234"),
    ]
)
anything = st.text(
    st.characters(exclude_categories=["Cs", "Co"], exclude_characters="\0"), max_size=8
)
texts = st.lists(st.one_of(words, marks, anything), max_size=3).map("".join)
contents = texts.filter(bool)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-999, 999), st.floats(-9, 9, width=16), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(words, inner, max_size=2)),
    max_leaves=3,
)
names = st.from_regex("[a-z][a-z_]{0,8}", fullmatch=True)
numbers = st.sampled_from(["a1b2c3d4e", "f6g7h8i9j", "call_0123456789abcdef"])
calls = st.builds(call, names, st.dictionaries(names, values, max_size=3), numbers)


def needs_of(chat: Chat) -> set[str]:
    """What a conversation needs of a template."""
    found = {need.TOOLS} if chat.tools else set()
    spoken = [message for message in chat.messages if message["role"] in ("user", "assistant")]
    spoken = [message for message in spoken if not message.get("tool_calls")]
    if any((it["role"] == "user") != (index % 2 == 0) for index, it in enumerate(spoken)):
        found.add(need.ANY_ORDER)
    for message in chat.messages:
        made = message.get("tool_calls") or []
        if message["role"] == "system":
            found.add(need.SYSTEM)
        if made:
            found.add(need.CALLS)
        if len(made) > 1:
            found.add(need.PARALLEL)
        if made and message["content"]:
            found.add(need.CALL_CONTENT)
        if any(len(each["id"]) != 9 for each in made):
            found.add(need.ANY_ID)
        if message.get("reasoning_content", "").strip() and message.get("weight", 1):
            found.add(need.CALL_REASONING if made else need.REASONING)
    return found


@st.composite
def _turn(draw: st.DrawFn) -> list[Message]:
    """A question and what follows it, up to and including an answer."""
    more: Message = {}
    if draw(st.sampled_from([False, False, True])):
        more["reasoning_content"] = draw(contents)
    if draw(st.sampled_from([False, False, False, True])):
        more["weight"] = 0
    turn = [user(draw(texts))]
    if draw(st.sampled_from([False, False, True])):
        made = draw(st.lists(calls, min_size=1, max_size=2))
        turn.append(calling(*made, content=draw(st.sampled_from(["", "I look."]))))
        turn += [result(draw(texts), each["function"]["name"], each["id"]) for each in made]
    return [*turn, answer(draw(contents), **more)]


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    """Any conversation in which at least one message is learned."""
    messages = [system(draw(texts))] if draw(st.booleans()) else []
    for turn in draw(st.lists(_turn(), min_size=1, max_size=3)):
        messages += turn
    if draw(st.sampled_from([False] * 7 + [True])):  # in an order that few templates accept
        messages.insert(int(messages[0]["role"] == "system"), answer("Good day.", weight=0))
    messages[-1].pop("weight", None)
    return Chat(messages, TOOLS if draw(st.sampled_from([False, False, True])) else None)
