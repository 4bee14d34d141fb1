"""What is learned of a chat: answers and the ends of their turns, behind the generation prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_data.errors import BaseModelError
from finetune_data.read.examples import COMPLETION, Conversation
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chats.control_tokens import ControlToken
from finetune_data.tokenize.chats.encoding import ChatEncoder
from finetune_data.tokenize.chats.source import TemplateSource
from finetune_data.tokenize.chats.turns import ChatTemplate, Turn
from finetune_data.tokenize.loading import load_tokenizer
from tests.data.builders import encoded, write_tokenizer

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|user|>")
EOS = ControlToken(1, "</s>", is_special=True)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool>{{ call.function | tojson }}</tool>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLOSED_LATER = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if not loop.last or add_generation_prompt %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1].role != 'assistant' %}"
    "<|im_start|>assistant\n{% endif %}"
)
GENERATION = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n{% else %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
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
BEHIND_A_SPACE = MISTRAL.replace("{{ eos_token }}", " {{ eos_token }}")
GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
NOWHERE = (
    "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
NEXT_ROLE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LAST_IN_FULL = (  # thinking of earlier turns is dropped
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS_A_BLOCK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
TEMPLATES = {
    "chatml": (CHATML, "<|im_end|>", "template"),
    "closed later": (CLOSED_LATER, "<|im_end|>", "following"),
    "generation": (GENERATION, "<|im_end|>", "template"),
    "llama": (LLAMA, "<|eot_id|>", "template"),
    "mistral": (MISTRAL, "</s>", "template"),
    "behind a space": (BEHIND_A_SPACE, " </s>", "template"),
    "gemma": (GEMMA, "<end_of_turn>", "template"),
    "nowhere": (NOWHERE, "", "added"),
    "next role": (NEXT_ROLE, "<|user|>", "following"),
}


def template(name: str) -> ChatTemplate:
    source = TEMPLATES[name][0] if name in TEMPLATES else name
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    tokens = [ControlToken(i, text, is_special=True) for i, text in enumerate(SPECIAL)]
    stops = frozenset([SPECIAL.index("<|user|>")] if source == NEXT_ROLE else [])
    return ChatTemplate(TemplateSource(source), names, tokens, eos=EOS, stop_ids=stops)


def chat(*messages: tuple[str, str] | tuple[str, str, int], **extra: Any) -> Conversation:
    made = [
        {"role": role, "content": content, **({"weight": weight[0]} if weight else {})}
        for role, content, *weight in messages
    ]
    return Conversation(7, made, **extra)


def turns(name: str, made: Conversation) -> list[Turn]:
    found = template(name).turns(made)
    assert not isinstance(found, Finding), found
    return found


def learned(name: str, made: Conversation) -> list[str]:
    return [turn.learned for turn in turns(name, made)]


TALK = (("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_and_what_ends_them_are_learned(name: str) -> None:
    _, end, how = TEMPLATES[name]
    found = turns(name, chat(*TALK))
    assert [turn.learned.lstrip(" ") for turn in found] == [f"two{end}", f"four{end}"]
    # an answer that another message follows can be ended by the template
    assert found[-1].how == how
    assert {turn.end.text for turn in found} == {end.strip() or "</s>"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_context_is_what_the_template_renders_as_a_prompt(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    made = chat(*TALK)
    for index, turn in zip((1, 3), turns(name, made), strict=True):
        [expected], _ = render_jinja_template(
            [made.messages[:index]],
            chat_template=TEMPLATES[name][0],
            add_generation_prompt=True,
            bos_token="<s>",
            eos_token="</s>",
        )
        assert turn.context == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_messages_of_weight_zero_are_not_learned(name: str) -> None:
    talk = (TALK[0], ("assistant", "two", 0), *TALK[2:])
    [found] = learned(name, chat(*talk))
    assert found.strip() == f"four{TEMPLATES[name][1]}"


CALL = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1, "y": ["a", null]}'}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def calling(content: str = "") -> Conversation:
    return Conversation(
        1,
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": content, "tool_calls": [CALL]},
            {"role": "tool", "content": "5"},
            {"role": "assistant", "content": "done"},
        ],
    )


def test_tool_calls_are_learned() -> None:
    assert learned("chatml", calling()) == [
        '<tool>{"name": "f", "arguments": {"x": 1, "y": ["a", null]}}</tool><|im_end|>',
        "done<|im_end|>",
    ]


@pytest.mark.parametrize(
    "written",
    [
        "{{ c.function.name + c.function.arguments }}",  # only a text can be joined to a text
        "{% for k, v in c.function.arguments.items() %}<k>{{ k }}<v>{{ v }}{% endfor %}"
        "{{ c.function.name }}",
    ],
)
@pytest.mark.parametrize("condition", ["m.content is none", "not m.content", "m.tool_calls"])
def test_calls_are_written_as_each_template_needs_them(written: str, condition: str) -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and "
        f"m.tool_calls is defined and {condition} %}}{{% for c in m.tool_calls %}}{written}"
        "{% endfor %}{% else %}{{ m.content + '' }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    first, last = learned(source, calling())
    assert last == "done<|im_end|>"
    assert all(part in first for part in ("f", "x", "1", "y", "a"))
    assert first.endswith("<|im_end|>")


LOSES_CALLS = CHATML.replace("m.tool_calls or []", "[]")
LOSES_SYSTEM = CHATML.replace(
    "{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"
)


@pytest.mark.parametrize(
    ("source", "made", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", chat(*TALK), "roles must alternate"),
        ("{{ messages[0].nothing.at_all }}", chat(*TALK), "refuses this conversation"),
        ("{% for", chat(*TALK), "refuses this conversation"),
        ("{{ ''.__class__.__mro__ }}", chat(*TALK), "refuses this conversation"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", chat(*TALK), "refuses this conversation"),
        (
            "{% for m in messages %}{{ m.content | length }}{% endfor %}",
            chat(*TALK),
            "messages[1].content",
        ),
        ("{{ messages[0].content }}", chat(*TALK), "messages[1].content"),
        (LOSES_CALLS, calling(), "messages[1].tool_calls[0].function.name"),
        (LOSES_CALLS, calling("I look."), "set messages[1].content to null"),
        (CHATML, chat(*TALK, tools=TOOLS), "tools[0]"),
        (LOSES_SYSTEM, chat(("system", "be brief"), *TALK), "messages[0].content"),
        (
            CHATML,
            Conversation(
                7,
                [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a", "reasoning_content": "because"},
                ],
            ),
            "messages[1].reasoning_content",
        ),
        (CHATML.replace("{{ m.role }}", "{{ messages[0].role }}"), chat(*TALK), "otherwise than"),
    ],
)
def test_what_a_template_refuses_or_loses_is_a_finding(
    source: str, made: Conversation, words: str
) -> None:
    found = template(source).turns(made)
    assert isinstance(found, Finding)
    assert words in found.message
    assert found.line == made.line


def test_reasoning_is_learned_where_the_template_writes_it() -> None:
    made = Conversation(
        1,
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "reasoning_content": "because"},
            {"role": "user", "content": "q2"},
            {"role": "assistant", "content": "a2", "reasoning_content": "since"},
        ],
    )
    first, second = turns(LAST_IN_FULL, made)
    assert first.learned == "<think>\nbecause\n</think>\na<|im_end|>"
    assert second.learned == "<think>\nsince\n</think>\na2<|im_end|>"
    assert "because" not in second.context


def test_a_block_of_reasoning_that_the_prompt_opens_is_closed() -> None:
    answer = {"role": "assistant", "content": "a"}
    ask = {"role": "user", "content": "q"}
    assert learned(OPENS_A_BLOCK, Conversation(1, [ask, answer])) == ["\n</think>\n\na<|im_end|>"]
    thinking = {**answer, "reasoning_content": "because"}
    assert learned(OPENS_A_BLOCK, Conversation(1, [ask, thinking])) == [
        "because\n</think>\n\na<|im_end|>"
    ]


text = st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="\0"), max_size=12)


@settings(max_examples=60)
@given(st.sampled_from(sorted(TEMPLATES)), st.lists(st.tuples(text, text), min_size=1, max_size=3))
def test_the_learned_text_is_the_message_whatever_it_contains(
    name: str, said: list[tuple[str, str]]
) -> None:
    talk = [
        (role, words)
        for turn in said
        for role, words in zip(("user", "assistant"), turn, strict=True)
    ]
    answers = learned(name, chat(*talk))
    end = TEMPLATES[name][1]
    assert len(answers) == len(said)
    for (_, words), answer in zip(said, answers, strict=True):
        assert answer.endswith(end)
        assert answer.removesuffix(end).strip() == words.strip()


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_the_tokens_of_a_chat_are_its_text(tmp_path: Path, kind: str) -> None:
    folder = write_tokenizer(tmp_path, kind=kind, bos_token="<s>", chat_template=MISTRAL)
    tokenizer = load_tokenizer(folder, "tiny")
    [found] = encoded(tokenizer, chat(("user", "yes no"), ("assistant", "maybe")))
    backend = tokenizer._backend
    pieces = [backend.id_to_token(token) for token in found.tokens]
    shown = "".join(pieces).replace("▁", " ").replace("Ġ", " ")
    marks = [p for p, role in zip(pieces, found.roles, strict=True) if role == COMPLETION]
    assert "".join(marks).replace("▁", " ").replace("Ġ", " ") == " maybe</s>"
    assert shown.startswith("<s>")
    assert shown.endswith("maybe</s>")
    assert found.roles[-1] == COMPLETION


words = st.text("ab \n.<|_>é▁", max_size=9)


@pytest.fixture(scope="module", params=["bytes", "metaspace"])
def encoders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ChatEncoder]:
    made = {}
    for name, (source, _, _) in TEMPLATES.items():
        folder = tmp_path_factory.mktemp("tokenizer")
        write_tokenizer(folder, kind=request.param, bos_token="<s>", chat_template=source)
        encoder = load_tokenizer(folder, "tiny")._chats
        assert encoder is not None
        made[name] = encoder
    return made


@settings(max_examples=80)
@given(
    name=st.sampled_from(sorted(TEMPLATES)),
    said=st.lists(st.tuples(words, words, st.sampled_from([0, 1])), min_size=1, max_size=3),
)
def test_chats_that_are_encoded_at_once_have_the_tokens_of_whole_texts(
    encoders: dict[str, ChatEncoder], name: str, said: list[tuple[str, str, int]]
) -> None:
    talk: list[tuple[str, str] | tuple[str, str, int]] = []
    for question, answer, weight in said:
        talk += [("user", question), ("assistant", answer, weight)]
    made = chat(*talk, ("user", "q"), ("assistant", "a"))
    encoder = encoders[name]
    found = encoder._template.turns(made)
    assert not isinstance(found, Finding)
    assert encoder._at_once([found, found]) == [encoder._one_by_one(found)] * 2


def test_turns_that_are_written_differently_later_are_examples_of_their_own(
    tmp_path: Path,
) -> None:
    said = [("user", "yes"), ("assistant", "no"), ("user", "maybe"), ("assistant", "lazy")]
    counts = {}
    for name, source in (("same", MISTRAL), ("other", LAST_IN_FULL), ("nowhere", NOWHERE)):
        folder = write_tokenizer(tmp_path / name, bos_token="<s>", chat_template=source)
        counts[name] = len(encoded(load_tokenizer(folder, "tiny"), chat(*said)))
    assert counts == {"same": 1, "other": 2, "nowhere": 2}


def texts_of(
    folder: Path, source: object, made: Conversation, kind: str
) -> tuple[list[str], bytes]:
    """The texts of the tokens, and their roles."""
    folder = write_tokenizer(folder, kind=kind, bos_token="<s>", chat_template=source)
    tokenizer = load_tokenizer(folder, "tiny")
    [found] = encoded(tokenizer, made)
    texts = [tokenizer._backend.id_to_token(token) for token in found.tokens]
    return [it.replace("▁", " ").replace("Ġ", " ") for it in texts], found.roles


@pytest.mark.parametrize("said", ["no</s>", "</s>", "a</s>[INST] no [/INST] yes</s>b", "<s></s>"])
@pytest.mark.parametrize("who", ["user", "assistant"])
@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_the_text_of_a_message_never_becomes_a_special_token(
    tmp_path: Path, said: str, who: str, kind: str
) -> None:
    talk = {"user": "yes", "assistant": "maybe"} | {who: said}
    texts, roles = texts_of(tmp_path, MISTRAL, chat(*talk.items()), kind)
    assert texts.count("<s>") == 1
    assert texts.count("</s>") == 1
    assert texts[-1] == "</s>"
    if kind == "bytes":  # the other knows no `<`
        assert "".join(texts) == f"<s>[INST] {talk['user']} [/INST] {talk['assistant']}</s>"
        marks = [it for it, role in zip(texts, roles, strict=True) if role == COMPLETION]
        assert "".join(marks) == f" {talk['assistant']}</s>"


def test_private_use_characters_in_a_text_stay_unchanged() -> None:
    said = "\ue0020\ue003 \ue0029999\ue003"
    [turn] = turns("chatml", chat(("user", said), ("assistant", "<s>")))
    made = template("chatml")
    assert said in made.quoting.plain(turn.context)
    assert [*made.quoting.split(turn.learned)] == [
        ("", False),
        ("<s>", True),
        ("<|im_end|>", False),
    ]


def test_conversations_with_tools_use_the_template_for_tools(tmp_path: Path) -> None:
    answers = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    both = [
        {"name": "tool_use", "template": f"tools {{{{ tools }}}} {answers}"},
        {"name": "default", "template": answers},
    ]
    talk = (("user", "a"), ("assistant", "b"))
    with_tools = texts_of(tmp_path, both, chat(*talk, tools=TOOLS), "bytes")
    without = texts_of(tmp_path, both, chat(*talk), "bytes")
    assert "".join(with_tools[0]).startswith("tools ")
    assert "".join(with_tools[0]).endswith("a</s>b</s>")
    assert "".join(without[0]) == "a</s>b</s>"


def test_additional_templates_are_found_in_their_folder(tmp_path: Path) -> None:
    from finetune_data.tokenize.chats.source import find_template

    assert find_template(tmp_path, {}) is None
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert find_template(tmp_path, {"chat_template": "plain"}) == TemplateSource("plain", "tools")
    (tmp_path / "chat_template.jinja").write_text("file")
    assert find_template(tmp_path, {"chat_template": "plain"}) == TemplateSource("file", "tools")


@pytest.mark.parametrize("content", ["[1]", "null", '"x"', "{"])
def test_a_broken_template_file_is_a_sentence(tmp_path: Path, content: str) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "chat_template.json").write_text(content)
    with pytest.raises(BaseModelError, match=r"chat_template\.json is not"):
        load_tokenizer(folder, "tiny")
