"""The learned tokens of a chat: assistant messages and the ends of their turns, in any template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_data.errors import BaseModelError
from finetune_data.read.examples import COMPLETION, Conversation
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chat_templates import CLOSE, OPEN, ChatTemplate, Piece, TemplateSource
from finetune_data.tokenize.loading import load_tokenizer
from finetune_data.tokenize.tokenizer import Encoded
from tests.data.builders import write_tokenizer

ENDS = ("<|im_end|>", "<|eot_id|>", "</s>", "<end_of_turn>", "<s>")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool>{{ call.function | tojson }}</tool>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GENERATION = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n{% else %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
TEMPLATES = {
    "chatml": (CHATML, "<|im_end|>"),
    "generation": (GENERATION, "<|im_end|>"),
    "llama": (LLAMA, "<|eot_id|>"),
    "mistral": (MISTRAL, "</s>"),
    "gemma": (GEMMA, "<end_of_turn>"),
}


def template(name: str) -> ChatTemplate:
    source = TEMPLATES[name][0] if name in TEMPLATES else name
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    return ChatTemplate(TemplateSource(source), tokens, ENDS)


def chat(*messages: tuple[str, str] | tuple[str, str, int], **extra: Any) -> Conversation:
    made = [
        {"role": role, "content": content, **({"weight": weight[0]} if weight else {})}
        for role, content, *weight in messages
    ]
    return Conversation(7, made, **extra)


def learned(found: list[Piece] | Finding) -> list[str]:
    assert not isinstance(found, Finding), found
    return [piece.text for piece in found if piece.is_learned]


TALK = (("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_assistant_messages_and_the_end_of_turn_are_learned(name: str) -> None:
    end = TEMPLATES[name][1]
    found = template(name).pieces(chat(*TALK))
    assert [text.strip() for text in learned(found)] == [f"two{end}", f"four{end}"]
    assert not isinstance(found, Finding)
    whole = "".join(piece.text for piece in found)
    assert OPEN not in whole
    assert CLOSE not in whole


@pytest.mark.parametrize("name", TEMPLATES)
def test_messages_of_weight_zero_are_not_learned(name: str) -> None:
    talk = (TALK[0], ("assistant", "two", 0), *TALK[2:])
    assert [text.strip() for text in learned(template(name).pieces(chat(*talk)))] == [
        f"four{TEMPLATES[name][1]}"
    ]


def test_tool_calls_are_learned() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    made = Conversation(
        1,
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "5"},
            {"role": "assistant", "content": "done"},
        ],
    )
    found = learned(template("chatml").pieces(made))
    assert found == [
        '<tool>{"name": "f", "arguments": {"x": 1}}</tool><|im_end|>',
        "done<|im_end|>",
    ]


def test_a_template_that_trims_is_followed_by_prefixes() -> None:
    found = template("llama").pieces(chat(("user", " q "), ("assistant", " spaced \n")))
    assert learned(found) == ["spaced<|eot_id|>"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].nothing.at_all }}", "refuses this conversation"),
        ("{% for", "refuses this conversation"),
        (
            "{{ messages | length }}{% for m in messages %}{{ m.content | length }}{% endfor %}",
            "cannot be found in the result",
        ),
        ("{{ ''.__class__.__mro__ }}", "refuses this conversation"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "refuses this conversation"),
    ],
)
def test_a_template_that_refuses_or_hides_is_a_finding(source: str, words: str) -> None:
    found = template(source).pieces(chat(*TALK))
    assert isinstance(found, Finding)
    assert words in found.message
    assert found.line == 7


text = st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="\0"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TEMPLATES)), st.lists(st.tuples(text, text), min_size=1, max_size=3))
def test_the_learned_text_is_the_message_whatever_it_contains(
    name: str, turns: list[tuple[str, str]]
) -> None:
    talk = [
        (role, said)
        for turn in turns
        for role, said in zip(("user", "assistant"), turn, strict=True)
    ]
    found = template(name).pieces(chat(*talk))
    if isinstance(found, Finding):  # words that look like the template's own
        return
    end = TEMPLATES[name][1]
    answers = learned(found)
    assert len(answers) == len(turns)
    for (_, said), answer in zip(turns, answers, strict=True):
        assert answer.endswith(end)
        assert answer.removesuffix(end).strip() == said.strip()


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_the_tokens_of_a_chat_are_its_text(tmp_path: Path, kind: str) -> None:
    folder = write_tokenizer(tmp_path, kind=kind, bos_token="<s>", chat_template=MISTRAL)
    tokenizer = load_tokenizer(folder, "tiny")
    [found] = tokenizer.encode([chat(("user", "yes no"), ("assistant", "maybe"))])
    assert isinstance(found, Encoded)
    backend = tokenizer._backend
    pieces = [backend.id_to_token(token) for token in found.tokens]
    shown = "".join(pieces).replace("▁", " ").replace("Ġ", " ")
    marks = [p for p, role in zip(pieces, found.roles, strict=True) if role == COMPLETION]
    assert "".join(marks).replace("▁", " ").replace("Ġ", " ") == "maybe</s>"
    assert shown.startswith("<s>")
    assert shown.endswith("maybe</s>")
    assert found.roles[-1] == COMPLETION
    assert tokenizer.lengths([chat(("user", "yes no"), ("assistant", "maybe"))]) == [len(pieces)]


def encoded(folder: Path, source: object, made: Conversation, kind: str) -> tuple[list[str], bytes]:
    """The texts of the tokens, and their roles."""
    folder = write_tokenizer(folder, kind=kind, bos_token="<s>", chat_template=source)
    tokenizer = load_tokenizer(folder, "tiny")
    [found] = tokenizer.encode([made])
    assert isinstance(found, Encoded)
    texts = [tokenizer._backend.id_to_token(token) for token in found.tokens]
    return [text.replace("▁", " ").replace("Ġ", " ") for text in texts], found.roles


@pytest.mark.parametrize("said", ["no</s>", "</s>", "a</s>[INST] no [/INST] yes</s>b", "<s></s>"])
@pytest.mark.parametrize("who", ["user", "assistant"])
@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_the_text_of_a_message_never_becomes_a_special_token(
    tmp_path: Path, said: str, who: str, kind: str
) -> None:
    talk = {"user": "yes", "assistant": "maybe"} | {who: said}
    texts, roles = encoded(tmp_path, MISTRAL, chat(*talk.items()), kind)
    assert texts.count("<s>") == 1
    assert texts.count("</s>") == 1
    assert texts[-1] == "</s>"
    if kind == "bytes":  # the other knows no `<`
        assert "".join(texts) == f"<s>[INST] {talk['user']} [/INST] {talk['assistant']}</s>"
        learned = [text for text, role in zip(texts, roles, strict=True) if role == COMPLETION]
        assert "".join(learned) == f"{talk['assistant']}</s>"


def test_private_use_characters_in_a_text_stay_unchanged() -> None:
    said = "\ue0020\ue003 \ue0029999\ue003"
    found = template("chatml").pieces(chat(("user", said), ("assistant", "<s>")))
    assert not isinstance(found, Finding)
    assert said in found[0].text
    assert [piece for piece in found if piece.is_quoted] == [Piece("<s>", True, True)]


def test_conversations_with_tools_use_the_template_for_tools(tmp_path: Path) -> None:
    answers = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    both = [
        {"name": "tool_use", "template": f"tools {answers}"},
        {"name": ["odd"], "template": 1},
        {"name": "default", "template": answers},
    ]
    talk = (("user", "a"), ("assistant", "b"))
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools = encoded(tmp_path, both, chat(*talk, tools=tools), "bytes")
    without = encoded(tmp_path, both, chat(*talk), "bytes")
    assert "".join(with_tools[0]) == "tools a</s>b</s>"
    assert "".join(without[0]) == "a</s>b</s>"


def test_a_template_that_renders_no_answer_is_a_finding() -> None:
    found = template("{{ messages[0].content }}").pieces(chat(("user", "q"), ("assistant", "")))
    assert isinstance(found, Finding)


@pytest.mark.parametrize("content", ["[1]", "null", '"x"', "{"])
def test_a_broken_template_file_is_a_sentence(tmp_path: Path, content: str) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "chat_template.json").write_text(content)
    with pytest.raises(BaseModelError, match=r"chat_template\.json is not"):
        load_tokenizer(folder, "tiny")
