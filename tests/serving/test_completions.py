"""POST /v1/completions with a real model and OpenAI's client, compared with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from openai.types import Completion

from tests.serving.server import Server
from tests.support.tiny_model import CONTEXT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tiny: Path) -> tuple[Any, Any]:
    """The model and the tokenizer as transformers loads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    return model, AutoTokenizer.from_pretrained(tiny)


def strictly(answer: Completion) -> Completion:
    """The answer, if it is exactly of OpenAI's type. Its type excludes the nulls of an echo."""
    raw = answer.to_dict()
    for choice in raw["choices"]:  # type: ignore[attr-defined]
        for name in ("token_logprobs", "top_logprobs"):
            found = (choice["logprobs"] or {}).get(name)
            if found and found[0] is None:
                choice["logprobs"][name] = found[1:]
    return Completion.model_validate(raw, strict=True)


def test_greedy_text_is_what_transformers_generates(
    client: OpenAI, reference: tuple[Any, Any]
) -> None:
    model, tokenizer = reference
    for prompt in ("abc", "0123456789", "z"):
        inputs = tokenizer(prompt, return_tensors="pt")
        made = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=20,
            do_sample=False,
        )
        expected = tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True)
        answer = client.completions.create(
            model="tiny", prompt=prompt, max_tokens=20, temperature=0
        )
        assert strictly(answer).choices[0].text == expected
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(prompt)


def test_an_echo_has_the_log_probabilities_of_one_forward_pass(
    client: OpenAI, reference: tuple[Any, Any]
) -> None:
    import torch

    model, tokenizer = reference
    prompt = "the quick fox 42 -> " * 3
    answer = client.completions.create(
        model="tiny", prompt=prompt, max_tokens=3, temperature=0, logprobs=5, echo=True
    )
    (choice,) = strictly(answer).choices
    assert choice.text.startswith(prompt) and len(choice.text) > len(prompt)
    raw: Any = answer.choices[0].logprobs
    ids = tokenizer(choice.text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits[0].double().log_softmax(-1)
    assert raw.tokens == list(choice.text)
    assert raw.text_offset == [*range(len(choice.text))]
    assert (raw.token_logprobs[0], raw.top_logprobs[0]) == (None, None)
    for place in range(1, len(raw.tokens)):
        row = expected[place - 1]
        token = int(ids[0, place])
        assert raw.token_logprobs[place] == pytest.approx(float(row[token]), abs=1e-4)
        tops = sorted(raw.top_logprobs[place].values(), reverse=True)[:5]
        assert tops == pytest.approx(row.topk(5).values.tolist(), abs=1e-4)
        assert raw.tokens[place] in raw.top_logprobs[place]


def test_a_prompt_is_scored_without_a_completion(client: OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt=["abc", "xy"], max_tokens=0, logprobs=1, echo=True
    )
    assert [choice.text for choice in answer.choices] == ["abc", "xy"]
    assert [len(choice.logprobs.tokens) for choice in answer.choices] == [3, 2]  # type: ignore[union-attr, arg-type]
    assert answer.usage is not None and answer.usage.completion_tokens == 0


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("stop", [None, ["a", "5"]])
def test_a_stream_is_the_unstreamed_answer(client: OpenAI, echo: bool, stop: Any) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "prompt": ["abc", "x"],
        "max_tokens": 12,
        "logprobs": 2,
        "n": 2,
        "seed": 5,
        "echo": echo,
        "stop": stop,
    }
    whole = client.completions.create(**asked)
    texts: dict[int, str] = {}
    logs: dict[int, dict[str, list[Any]]] = {}
    reasons: dict[int, str] = {}
    ids, usages = set(), []
    for part in client.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        ids.add(part.id)
        usages.append(part.usage)
        for choice in part.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
            for name, values in (choice.logprobs.to_dict() if choice.logprobs else {}).items():
                logs.setdefault(choice.index, {}).setdefault(name, []).extend(values)  # type: ignore[arg-type]
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    for choice in whole.choices:
        expected = choice.logprobs.to_dict() if choice.logprobs else {}
        assert logs.get(choice.index, {name: [] for name in expected}) == expected
    assert len(ids) == 1
    assert usages[-1] == whole.usage and set(usages[:-1]) == {None}


def test_seeds_repeat_and_prompts_keep_their_order(client: OpenAI) -> None:
    def texts(**asked: Any) -> list[str]:
        answer = client.completions.create(
            **{"model": "tiny", "prompt": "abc", "seed": 7, "max_tokens": 12, **asked}
        )
        assert [choice.index for choice in answer.choices] == [*range(len(answer.choices))]
        return [choice.text for choice in answer.choices]

    four = texts(n=4)
    assert texts() == four[:1]
    assert len(set(four)) == 4
    assert texts(seed=-8) != four[:1]
    several = texts(prompt=["z", "abc", "0"], n=2)
    assert several[2:4] == four[:2]
    assert several[:2] == texts(prompt="z", n=2)
    assert several[4:] == texts(prompt="0", n=2)
    letters = {text: [3 + ord(letter) - ord("a") for letter in text] for text in ("abc", "z")}
    assert texts(prompt=letters["abc"]) == four[:1]
    assert texts(prompt=[*letters.values()], n=2) == [*four[:2], *several[:2]]


def test_the_best_of_several_is_the_one_with_the_highest_mean(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "abc", "seed": 3, "logprobs": 0}
    asked |= {"max_tokens": 8, "logit_bias": {"1": -100}}  # no end token

    def mean(choice: Any) -> float:
        found = choice.logprobs.token_logprobs
        return sum(found) / len(found)

    several = client.completions.create(**asked, n=6)
    best = client.completions.create(**asked, n=2, best_of=6)
    ranked = sorted(several.choices, key=mean, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert best.usage == several.usage


def test_penalties_and_biases_change_the_text(client: OpenAI) -> None:
    def text(**asked: Any) -> str:
        given = {"model": "tiny", "prompt": "abc", "max_tokens": 20, "temperature": 0, **asked}
        return client.completions.create(**given).choices[0].text

    usual = text()
    assert len(set(text(frequency_penalty=2, presence_penalty=2))) > len(set(usual))
    assert text(logit_bias={"5": 100}) == "c" * 20
    cut = text(stop=usual[4])
    assert cut == usual[: usual.index(usual[4])]


def test_null_fields_are_the_defaults(server: Server) -> None:
    unset = ("n", "max_tokens", "logprobs", "temperature", "top_p", "stop", "best_of", "suffix")
    body = {"model": "tiny", "prompt": "abc", "echo": True, "stream": False, "seed": 1}
    status, answer, _ = server.post({**body, **dict.fromkeys(unset)})
    assert status == 200
    assert answer["choices"] == server.post(body)[1]["choices"]
    assert answer["usage"]["completion_tokens"] <= 16
    assert answer["choices"][0]["text"].startswith("abc")


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"suffix": "x"}, "suffix", "does not support the field 'suffix'"),
        ({"top_k": 5}, "top_k", "does not support"),
        ({"n": 17}, "n", "from 1 to 16"),
        ({"n": True}, "n", "not true"),
        ({"logprobs": 6}, "logprobs", "from 0 to 5"),
        ({"logprobs": True}, "logprobs", "an integer"),
        ({"stop": ""}, "stop", "none of which is empty"),
        ({"stop": list("abcde")}, "stop", "at most 4"),
        ({"best_of": 1, "n": 2}, "best_of", "less than n"),
        ({"best_of": 2, "stream": True}, "best_of", "cannot select the best"),
        ({"stream_options": {}}, "stream_options", "needs 'stream'"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "an object"),
        ({"logit_bias": {"999": 1}}, "logit_bias", "the token 999"),
        ({"prompt": []}, "prompt", "1 to 2,048"),
        ({"prompt": [1, "a"]}, "prompt", "of one kind"),
        ({"prompt": [[999]]}, "prompt", "the token 999"),
        ({"prompt": None}, "prompt", "is missing"),
        ({"model": 5}, "model", "the name of a model"),
        ({"temperature": 3}, "temperature", "from 0 to 2"),
        ({"max_tokens": -1}, "max_tokens", "from 0"),
        ({"seed": 1.5}, "seed", "an integer"),
        ({"messages": []}, "messages", "does not support"),
    ],
)
def test_what_is_wrong_is_named(
    server: Server, changes: dict[str, Any], param: str, words: str
) -> None:
    status, answer, headers = server.post({"model": "tiny", "prompt": "abc", **changes})
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert words in answer["error"]["message"]
    assert headers["x-request-id"]


def test_a_text_beyond_the_context_is_refused_with_the_numbers(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="a" * 60, max_tokens=5, stream=True)
    assert caught.value.code == "context_length_exceeded"
    assert "64 tokens" in caught.value.message and "65 tokens (60 in" in caught.value.message
    fits = client.completions.create(model="tiny", prompt="a" * 60, temperature=0)
    assert fits.usage is not None and fits.usage.total_tokens <= CONTEXT


def test_an_unknown_model_and_an_unknown_url_are_404(server: Server) -> None:
    status, answer, _ = server.post({"model": "no\u0000such", "prompt": "a"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    status, answer, _ = server.post({}, "embeddings")
    assert (status, answer["error"]["code"]) == (404, "unknown_url")
    status, answer, _ = server.post(b"{", "completions")
    assert (status, "not valid JSON" in answer["error"]["message"]) == (400, True)


def test_the_models_are_listed(client: OpenAI, server: Server) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "plain"]
    assert client.models.retrieve("tiny").id == "tiny"
