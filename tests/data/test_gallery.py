"""What is learned of each conversation under each template of the gallery."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_data.read.findings import Finding
from finetune_data.tokenize.chats import outlines
from finetune_data.tokenize.chats.outlines import OutlinedChat, OutlinedTurns
from finetune_data.tokenize.encoded import Encoded
from finetune_data.tokenize.loading import load_tokenizer
from tests.data.gallery.checking import check, learned_runs
from tests.data.gallery.conversations import (
    CHATS,
    Chat,
    answer,
    chats,
    contents,
    needs_of,
    user,
)
from tests.data.gallery.families import FAMILIES
from tests.data.gallery.oracle import Oracle

GOLDEN = Path(__file__).parent / "gallery" / "golden"
talks = st.lists(st.lists(contents, min_size=2, max_size=2), min_size=1, max_size=2).map(
    lambda turns: [text for turn in turns for text in turn]
)
TAIL = 60  # characters of a context


class Gallery:
    """The folders of all families, with the product's tokenizer and the oracle for each."""

    def __init__(self, folder: Path) -> None:
        folders = {name: family.write(folder / name) for name, family in FAMILIES.items()}
        self.oracles = {name: Oracle(FAMILIES[name], path) for name, path in folders.items()}
        self.tokenizers = {name: load_tokenizer(path, name) for name, path in folders.items()}

    def encode(self, name: str, chat: Chat) -> tuple[Encoded, ...] | Finding:
        [found] = self.tokenizers[name].encode([chat.parsed()])
        return found


def is_supported(name: str, chat: Chat) -> bool:
    return FAMILIES[name].is_supported(needs_of(chat), has_tools=bool(chat.tools))


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery") / "families")


@pytest.mark.parametrize("name", FAMILIES)
def test_each_turn_is_learned_as_transformers_renders_it(gallery: Gallery, name: str) -> None:
    for title, chat in CHATS.items():
        found = gallery.encode(name, chat)
        is_learned = not isinstance(found, Finding)
        assert is_learned == is_supported(name, chat), (title, found)
        check(gallery.oracles[name], chat, found)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_learned_is_that_of_the_golden_file(
    gallery: Gallery, name: str, request: pytest.FixtureRequest
) -> None:
    lines: list[str] = []
    for title, chat in CHATS.items():
        lines += [f"{title}", *_shown(gallery, name, gallery.encode(name, chat))]
    text = "\n".join(lines) + "\n"
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "run pytest with --update-golden"


def _shown(gallery: Gallery, name: str, found: tuple[Encoded, ...] | Finding) -> list[str]:
    if isinstance(found, Finding):
        return [f"  refused: {found.message}"]
    decode = gallery.oracles[name].decode
    return [
        "  "
        + " | ".join(
            text.replace("\\", "\\\\").replace("\n", "\\n")
            for text in (
                decode(run.context)[-TAIL:],
                decode(run.tokens[:-1]),
                f"{decode([run.end.token])} {run.end.how}",
            )
        )
        for run in learned_runs(found)
    ]


@pytest.mark.parametrize(
    ("name", "title", "words"),
    [
        ("gemma2", "call", "messages[1].tool_calls[0].function.name: the tool call"),
        ("gemma2", "call", "use a base model whose template supports tool calls"),
        ("gemma3", "call next to a text", "set messages[1].content to null, or use a base model"),
        ("gpt_oss", "two calls", "messages[1].tool_calls[1].function.name: the tool call"),
        ("gpt_oss", "two calls", "supports several tool calls in one message"),
        ("granite3", "call next to a text", "messages[1].content: the text of an assistant"),
        ("chatml", "tools without a call", "tools[0]: the tool is not in the text"),
        ("deepseek_v3", "two calls", "tools[0]: the tool is not in the text"),
        ("olmo2", "tools without a call", "remove the tools or use a base model"),
        ("llama2", "reasoning", "messages[1].reasoning_content: the reasoning"),
        ("phi4", "reasoning in each turn", "messages[1].reasoning_content: the reasoning"),
        ("gemma3", "reasoning", "remove the reasoning or use a base model whose template writes"),
        ("mistral_v3", "call with a long id", "needs an id of 9 letters or digits"),
        ("llama3_1", "two calls", "only one tool call at once is supported"),
    ],
)
def test_what_a_template_loses_or_refuses_is_told_with_its_key_and_a_remedy(
    gallery: Gallery, name: str, title: str, words: str
) -> None:
    [found] = gallery.tokenizers[name].encode([CHATS[title].parsed(line=17)])
    assert isinstance(found, Finding)
    assert found.line == 17
    assert words in found.message


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_that_looks_like_a_mark_of_the_encoder_stays_as_it_is(
    gallery: Gallery, name: str
) -> None:
    said = "a \ue0020\ue003 \ue0029999\ue003<|im_end|></s> b"
    found = gallery.encode(name, Chat([user(said), answer(said)]))
    assert not isinstance(found, Finding)
    assert gallery.oracles[name].decode(found[0].tokens).count(said) == 2


@pytest.mark.slow
@settings(
    max_examples=250,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(name=st.sampled_from(sorted(FAMILIES)), chat=chats())
def test_any_conversation_is_learned_as_rendered_or_refused(
    gallery: Gallery, name: str, chat: Chat
) -> None:
    found = gallery.encode(name, chat)
    is_learned = not isinstance(found, Finding)
    assert is_learned == is_supported(name, chat), found
    check(gallery.oracles[name], chat, found)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_template_writes_around_plain_texts_is_proved(gallery: Gallery, name: str) -> None:
    said = Chat([user("a"), answer("b"), user("a"), answer("b")]).parsed()
    template = gallery.tokenizers[name]._template
    assert template is not None
    outline = OutlinedTurns(template)._outline(said)
    assert outline is not None
    assert outline.holds_for(["a", "b", "a", "b"], "a")


@pytest.mark.slow
@settings(
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(name=st.sampled_from(sorted(FAMILIES)), said=st.lists(talks, min_size=2, max_size=4))
def test_turns_that_are_proved_are_those_of_the_renderings(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, name: str, said: list[list[str]]
) -> None:
    monkeypatch.setattr(outlines, "_COMPARED", 0)  # believed from the first conversation on
    template = gallery.tokenizers[name]._template
    assert template is not None
    turns = OutlinedTurns(template)
    for talk in said:
        chat = Chat([(user, answer)[i % 2](text) for i, text in enumerate(talk)]).parsed()
        found = turns.find(chat)
        made = found.turns if isinstance(found, OutlinedChat) else found
        assert made == template.turns(chat)
