"""Generates the choices of one request with a loaded model, in the thread of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_api.errors import FailureError
from finetune_api.wire import JsonObject
from finetune_data.errors import DataError
from finetune_serving.completion import prompts
from finetune_serving.completion.answers import EchoedPrompt, chat_logprobs, logprobs
from finetune_serving.completion.generation import Choice, Part, Request, SampledToken, complete
from finetune_serving.completion.text import TextStream
from finetune_serving.models.loaded import LoadedModel, is_out_of_memory
from finetune_serving.problems import too_long
from finetune_serving.wire.envelopes import Usage
from finetune_serving.wire.requests import CompletionRequest
from finetune_web.problems import Problem, invalid, unavailable

DEFAULT_TOKENS = 16  # of OpenAI's completions API
DEFAULT_CHAT_TOKENS = 1024


class Abandoned(Exception):  # noqa: N818 - not an error
    """No one waits for the answer any more."""


class BrokenModelError(Exception):
    """The process of the tokenizer has ended: the model must be loaded again."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True)
class Answer:
    """All choices, and the number of tokens. A stream has got the choices already."""

    choices: Sequence[JsonObject]
    usage: Usage


@dataclass(frozen=True)
class Listener:
    """Who waits for an answer.

    begun: called once the request is known to be valid for the model. part: called with each choice
    of a part of a stream. is_gone: asked before each token.
    """

    begun: Callable[[], None]
    part: Callable[[JsonObject], None]
    is_gone: Callable[[], bool]


@dataclass(frozen=True)
class _Prompt:
    text: str
    tokens: list[int]
    end_tokens: frozenset[int]
    max_tokens: int


def generate(loaded: LoadedModel, request: CompletionRequest, listener: Listener) -> Answer:
    """Raises Problem, Abandoned, or BrokenModelError."""
    try:
        if listener.is_gone():
            raise Abandoned
        found = [*_prompts(loaded, request)]
        listener.begun()
        return _Generation(loaded, request, listener).run(found)
    except DataError as error:
        if not request.is_chat:
            raise invalid(f"The model '{request.model}' cannot read the prompt: {error}") from error
        raise invalid(
            f"The model '{request.model}' was trained on prompts: use /v1/completions. {error}",
            "messages",
        ) from error
    except FailureError as error:
        problem = invalid(f"The model '{request.model}' cannot read this request: {error}")
        raise BrokenModelError(problem) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise unavailable(
            f"The memory does not suffice for this request to the model '{request.model}'. Shorten "
            "it, or try again later."
        ) from error


def _prompts(loaded: LoadedModel, request: CompletionRequest) -> Iterator[_Prompt]:
    if loaded.vocabulary is not None:
        _check_tokens("logit_bias", request.sampling.logit_bias, loaded.vocabulary)
    if request.is_chat:
        try:
            found = prompts.of_messages(loaded.tokenizer, request.messages, loaded.files)
        except prompts.RefusedMessagesError as error:
            raise invalid(
                f"The chat template of the model rejects these messages: {error}", "messages"
            ) from error
        yield _sized(loaded, request, "", found)
        return
    for prompt in request.prompts:
        if isinstance(prompt, str):
            found = prompts.of_text(loaded.tokenizer, prompt, loaded.files)
            yield _sized(loaded, request, prompt, found)
            continue
        if loaded.vocabulary is not None:
            _check_tokens("prompt", prompt, loaded.vocabulary)
        ends = prompts.end_tokens(loaded.tokenizer, loaded.files)
        text = loaded.tokenizer.decode(prompt) if request.echo else ""
        yield _sized(loaded, request, text, prompts.Prompt(prompt, ends))


def _check_tokens(param: str, tokens: Iterable[int], vocabulary: int) -> None:
    unknown = next((token for token in tokens if token >= vocabulary), None)
    if unknown is not None:
        raise invalid(
            f"The field '{param}' has the token {unknown}, but the model has only {vocabulary:,} "
            f"tokens, from 0 to {vocabulary - 1}.",
            param,
        )


def _sized(
    loaded: LoadedModel, request: CompletionRequest, text: str, found: prompts.Prompt
) -> _Prompt:
    used, context, most = len(found.tokens), loaded.context, request.max_tokens
    default = DEFAULT_CHAT_TOKENS if request.is_chat else DEFAULT_TOKENS
    if context is not None:
        least = 1 if most is None else most
        if used + least > context:
            raise too_long(used, least, context, "messages" if request.is_chat else "prompt")
        default = min(default, context - used)
    return _Prompt(text, found.tokens, found.end_tokens, default if most is None else most)


class _Generation:
    """One request. Each choice has its own random numbers, so that it does not depend on n."""

    def __init__(self, loaded: LoadedModel, request: CompletionRequest, listener: Listener) -> None:
        self._loaded = loaded
        self._request = request
        self._listener = listener
        self._names = loaded.tokenizer.texts if request.logprobs is not None else None
        self._completion_tokens = 0
        self._start = 0  # of a completion in its text

    def run(self, found: Sequence[_Prompt]) -> Answer:
        choices = []
        for number, prompt in enumerate(found):
            first = number * self._request.choices
            choices += self._of_prompt(prompt, first)
        usage = Usage(sum(len(prompt.tokens) for prompt in found), self._completion_tokens)
        return Answer(choices, usage)

    def _of_prompt(self, prompt: _Prompt, first: int) -> list[JsonObject]:
        """The choices of a prompt. first: the index of the first one."""
        request = self._request
        echoed = self._echo(prompt) if request.echo else None
        self._start = len(prompt.text) if request.echo else 0
        made = []
        for sample in range(request.samples):
            index = first + sample
            if request.is_streamed:
                self._begin(index, echoed)
            choice = self._complete(prompt, sample, index)
            self._completion_tokens += len(choice.tokens)
            made.append(choice)
            if request.is_streamed:
                self._send(index, "", (), choice.finish_reason)
        if request.is_streamed:
            return []
        best = (
            sorted(made, key=lambda it: -it.mean_logprob) if len(made) > request.choices else made
        )
        return [
            self._choice(first + place, choice, echoed)
            for place, choice in enumerate(best[: request.choices])
        ]

    def _complete(self, prompt: _Prompt, sample: int, index: int) -> Choice:
        if not prompt.max_tokens:  # only the prompt is scored
            return Choice("", [], "length", [])
        request, seed = self._request, self._request.seed

        def on_part(part: Part) -> None:
            if self._listener.is_gone():
                raise Abandoned
            if request.is_streamed and (part.text or part.sampled):
                self._send(index, part.text, part.sampled)

        wanted = Request(
            prompt=prompt.tokens,
            end_tokens=prompt.end_tokens,
            max_tokens=prompt.max_tokens,
            stops=request.stops,
            sampling=request.sampling,
            logprobs=request.logprobs,
        )
        random = np.random.default_rng(None if seed is None else [seed % 2**64, sample])
        if self._listener.is_gone():
            raise Abandoned
        return complete(self._loaded.model, wanted, self._loaded.tokenizer.decode, random, on_part)

    def _echo(self, prompt: _Prompt) -> EchoedPrompt:
        """The prompt with its log probabilities, if they are requested."""
        first, *others = prompt.tokens
        if self._request.logprobs is None:
            return EchoedPrompt(prompt.text, first, ())
        scores, _ = self._loaded.model.score(prompt.tokens, self._request.logprobs)
        stream = TextStream(self._loaded.tokenizer.decode, ())
        stream.add(first)
        scored = []
        for token, score in zip(others, scores, strict=True):
            start = min(len(stream.text), len(prompt.text))
            scored.append(SampledToken(token, score.logprob, start, score.likeliest))
            stream.add(token)
            if self._listener.is_gone():
                raise Abandoned
        return EchoedPrompt(prompt.text, first, scored)

    def _choice(self, index: int, choice: Choice, echoed: EchoedPrompt | None) -> JsonObject:
        request, names = self._request, self._names
        if request.is_chat:
            return {
                "index": index,
                "message": {"role": "assistant", "content": choice.text},
                "logprobs": chat_logprobs(choice.sampled, names) if names else None,
                "finish_reason": choice.finish_reason,
            }
        return {
            "text": (echoed.text if echoed else "") + choice.text,
            "index": index,
            "logprobs": logprobs(choice.sampled, names, echoed, self._start) if names else None,
            "finish_reason": choice.finish_reason,
        }

    def _begin(self, index: int, echoed: EchoedPrompt | None) -> None:
        """The first part of a choice in a stream."""
        if self._request.is_chat:
            self._listener.part(_delta(index, {"role": "assistant", "content": ""}))
        elif echoed is not None:
            found = logprobs((), self._names, echoed) if self._names else None
            self._listener.part(_text(index, echoed.text, found))

    def _send(
        self,
        index: int,
        text: str,
        sampled: Sequence[SampledToken],
        finish_reason: str | None = None,
    ) -> None:
        names = self._names if sampled else None
        if self._request.is_chat:
            delta = {} if finish_reason else {"content": text}
            found = chat_logprobs(sampled, names) if names else None
            self._listener.part(_delta(index, delta, found, finish_reason))
            return
        found = logprobs(sampled, names, start=self._start) if names else None
        self._listener.part(_text(index, text, found, finish_reason))


def _text(
    index: int, text: str, found: JsonObject | None, finish_reason: str | None = None
) -> JsonObject:
    return {"text": text, "index": index, "logprobs": found, "finish_reason": finish_reason}


def _delta(
    index: int,
    delta: JsonObject,
    found: JsonObject | None = None,
    finish_reason: str | None = None,
) -> JsonObject:
    return {"index": index, "delta": delta, "logprobs": found, "finish_reason": finish_reason}
