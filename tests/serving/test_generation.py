"""The loop, with a model that is a table: what follows each token is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from finetune_serving.completion.answers import chat_completion, completion, usage
from finetune_serving.completion.generation import Request, complete
from finetune_serving.completion.sampling import Numbers, Sampling

LETTERS = "$abcd"  # $ ends
GREEDY = Sampling(temperature=0)


class Table:
    """After each letter a distribution."""

    def __init__(self, **rows: dict[str, float]) -> None:
        self.rows = rows
        self.seen: list[int] = []

    def begin(self, tokens: Sequence[int]) -> Numbers:
        self.seen = [*tokens]
        return self._after()

    def follow(self, token: int) -> Numbers:
        self.seen.append(token)
        return self._after()

    def _after(self) -> Numbers:
        row = self.rows[LETTERS[self.seen[-1]]]
        with np.errstate(divide="ignore"):
            found: Numbers = np.log(np.array([row.get(letter, 1e-9) for letter in LETTERS]))
        return found


CYCLE = {"a": {"b": 0.75, "c": 0.25}, "b": {"c": 1.0}, "c": {"a": 0.5, "$": 0.375, "d": 0.125}}
CYCLE["d"] = {"$": 1.0}


def decode(tokens: Sequence[int]) -> str:
    return "".join(LETTERS[token] for token in tokens)


def ask(prompt: str, **changes: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    settings = {"end_tokens": {0}, "max_tokens": 8, "sampling": GREEDY, **changes}
    request = Request(prompt=[LETTERS.index(letter) for letter in prompt], **settings)
    return complete(
        Table(**CYCLE),
        request,
        decode,
        np.random.default_rng(3),
        lambda part: told.append(part.text),
    ), told


def test_it_continues_to_the_token_limit() -> None:
    choice, told = ask("a")
    assert (choice.text, choice.finish_reason) == ("bcabcabc", "length")
    assert "".join(told) == choice.text


def test_an_end_token_ends_the_completion_and_is_not_in_the_text() -> None:
    choice, _ = ask("d", logprobs=1)
    assert (choice.text, choice.finish_reason, choice.tokens) == ("", "stop", [0])
    assert choice.sampled == []


def test_the_end_token_counts_for_the_best_completion() -> None:
    empty, _ = ask("d")
    assert empty.mean_logprob == pytest.approx(0, abs=1e-6)  # its probability is 1
    ended, _ = ask("b", sampling=Sampling(temperature=0, logit_bias={1: -100}))
    assert ended.text == "c"
    assert ended.mean_logprob == pytest.approx((math.log(1) + math.log(0.375)) / 2, abs=1e-6)


def test_parts_have_the_tokens_that_begin_in_them() -> None:
    parts: list[Any] = []
    request = Request(
        prompt=[1], end_tokens={0}, max_tokens=8, stops=["abc"], sampling=GREEDY, logprobs=1
    )
    random = np.random.default_rng(3)
    choice = complete(Table(**CYCLE), request, decode, random, parts.append)
    assert choice.text == "bc"
    assert [it for part in parts for it in part.sampled] == choice.sampled
    for part in parts:
        assert len(part.sampled) == len(part.text)


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (["ca"], "b"),
        (["x", "abc"], "bc"),
        (["b"], ""),
        (["cc"], "bcabcabc"),
        (["abcz"], "bcabcabc"),
    ],
)
def test_a_stop_sequence_ends_it_and_is_never_emitted(stops: list[str], text: str) -> None:
    choice, told = ask("a", stops=stops)
    assert (choice.text, "".join(told)) == (text, text)
    assert choice.finish_reason == ("stop" if text != "bcabcabc" else "length")


def test_a_frequency_penalty_leads_out_of_a_circle() -> None:
    choice, _ = ask("a", sampling=Sampling(temperature=0, frequency_penalty=0.3))
    # a's log(0.5) beats the end's log(0.375) by 0.288: said once, it no longer does
    assert (choice.text, choice.finish_reason) == ("bcabc", "stop")


def test_log_probabilities_are_the_models_own_whatever_the_sampling() -> None:
    sampling = Sampling(temperature=0, presence_penalty=2, frequency_penalty=2)
    for settings in (GREEDY, sampling):
        choice, _ = ask("a", logprobs=2, max_tokens=1, sampling=settings)
        (first,) = choice.sampled
        assert first.logprob == pytest.approx(math.log(0.75), abs=1e-6)
        assert {LETTERS[token] for token in first.likeliest} == {"b", "c"}
        assert list(first.likeliest.values()) == pytest.approx(
            [math.log(0.75), math.log(0.25)], abs=1e-6
        )


def names(tokens: Sequence[int]) -> list[str]:
    return [LETTERS[token] for token in tokens]


def test_the_answer_has_the_shape_of_openais_api() -> None:
    choice, _ = ask("a", logprobs=1, stops=["ca"])
    answer = completion("ada:ft-acme", [choice], names) | {"usage": usage(1, [choice])}
    assert list(answer) == ["id", "object", "created", "model", "choices", "usage"]
    assert (answer["object"], answer["model"]) == ("text_completion", "ada:ft-acme")
    (told,) = answer["choices"]
    assert {key: told[key] for key in ("text", "index", "finish_reason")} == {
        "text": "b",
        "index": 0,
        "finish_reason": "stop",
    }
    logs = told["logprobs"]
    assert (logs["tokens"], logs["text_offset"]) == (["b"], [0])
    assert logs["token_logprobs"] == pytest.approx([math.log(0.75)], abs=1e-6)
    assert list(logs["top_logprobs"][0]) == ["b"]
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    assert completion("m", [choice], None)["choices"][0]["logprobs"] is None


def test_a_sampled_token_is_listed_with_the_likelier_ones() -> None:
    sampling = Sampling(temperature=0, presence_penalty=2)
    choice, _ = ask("ca", logprobs=1, max_tokens=4, sampling=sampling)
    tops = completion("m", [choice], names)["choices"][0]["logprobs"]["top_logprobs"]
    for token, top in zip(choice.sampled, tops, strict=True):
        assert LETTERS[token.token] in top
        assert list(top.values()) == sorted(top.values(), reverse=True)


def test_a_chats_answer_is_a_message() -> None:
    choice, _ = ask("a", logprobs=2, max_tokens=2)
    (told,) = chat_completion("m", [choice], names)["choices"]
    assert told["message"] == {"role": "assistant", "content": "bc"}
    first = told["logprobs"]["content"][0]
    assert first["token"] == "b"
    assert [top["token"] for top in first["top_logprobs"]] == ["b", "c"]


def test_the_same_seed_draws_the_same_and_each_choice_for_itself() -> None:
    request = Request(prompt=[1], end_tokens={0}, max_tokens=50)

    def draw(seed: int, index: int) -> str:
        random = np.random.default_rng([seed, index])
        return complete(Table(**CYCLE), request, decode, random).text

    assert draw(1, 0) == draw(1, 0)
    assert len({draw(1, index) for index in range(8)}) > 1
