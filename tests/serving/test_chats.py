"""POST /v1/chat/completions with a real model and OpenAI's client."""

from __future__ import annotations

from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.serving.server import Server

pytestmark = pytest.mark.slow

TALK: list[Any] = [
    {"role": "user", "content": "fox"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": [{"type": "text", "text": "a"}]},
]


def test_a_chat_is_completed_with_the_template_of_the_model(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=TALK, max_completion_tokens=8, temperature=0
    )
    checked = ChatCompletion.model_validate(answer.to_dict(), strict=True)
    assert checked.usage is not None
    # u:fox</s>a:yes</s>u:a</s>a:
    assert checked.usage.prompt_tokens == len("u:fox.a:yes.u:a.a:")
    ids = [*map(letter, "u:fox"), 1, *map(letter, "a:yes"), 1, *map(letter, "u:a"), 1]
    same = client.completions.create(
        model="tiny", prompt=[*ids, *map(letter, "a:")], max_tokens=8, temperature=0
    )
    assert checked.choices[0].message.content == same.choices[0].text


def letter(text: str) -> int:
    from tests.support.tiny_model import LETTERS

    return 3 + LETTERS.index(text)


def test_a_streamed_chat_is_the_unstreamed_one(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": TALK, "n": 2, "seed": 1}
    asked |= {"max_tokens": 8, "logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**asked)
    texts = {0: "", 1: ""}
    tokens: dict[int, list[Any]] = {0: [], 1: []}
    roles, reasons = [], {}
    for part in client.chat.completions.create(**asked, stream=True):
        ChatCompletionChunk.model_validate(part.to_dict(), strict=True)
        for choice in part.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            if choice.logprobs:
                tokens[choice.index] += choice.logprobs.content or []
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert roles == ["assistant"] * 2
    for choice in whole.choices:
        assert texts[choice.index] == choice.message.content
        assert reasons[choice.index] == choice.finish_reason
        assert choice.logprobs is not None
        assert tokens[choice.index] == choice.logprobs.content
        assert all(len(token.top_logprobs) == 3 for token in tokens[choice.index])


def test_a_model_without_a_template_was_trained_on_prompts(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="was trained on prompts: use /v1/completions"):
        client.chat.completions.create(model="plain", messages=TALK)
    with pytest.raises(BadRequestError, match="was trained on prompts"):
        client.chat.completions.create(model="plain", messages=TALK, stream=True)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a", "mood": 1}]}, "messages[0].mood"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"echo": True}, "echo"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
    ],
)
def test_what_is_wrong_is_named(server: Server, changes: dict[str, Any], param: str) -> None:
    body = {"model": "tiny", "messages": TALK, **changes}
    status, answer, _ = server.post(body, "chat/completions")
    assert (status, answer["error"]["param"]) == (400, param), answer


def test_values_without_an_effect_are_accepted(server: Server) -> None:
    body = {"model": "tiny", "messages": TALK, "max_tokens": 2, "tools": [], "store": False}
    body |= {"response_format": {"type": "text"}, "user": "anna", "tool_choice": "none"}
    assert server.post(body, "chat/completions")[0] == 200
