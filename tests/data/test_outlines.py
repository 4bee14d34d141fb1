"""Outlines of conversations hold for all texts, or are compared with a rendering of each."""

from __future__ import annotations

from string import Template

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_data.read.examples import Conversation
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chats import outlines
from finetune_data.tokenize.chats.control_tokens import ControlToken
from finetune_data.tokenize.chats.outlines import OutlinedChat, OutlinedTurns
from finetune_data.tokenize.chats.source import TemplateSource
from finetune_data.tokenize.chats.turns import ChatTemplate, Turn

EOS = ControlToken(1, "</s>", is_special=True)
TOKENS = [EOS, ControlToken(2, "<|start|>", is_special=True), ControlToken(3, "<|end|>", True)]
AROUND = Template("""\
{%- macro shown(text) %}<{{ text }}>{% endmacro %}
{%- macro boxed() %}[{{ caller() }}]{% endmacro %}
{%- for m in messages %}
{{- '<|start|>' + m.role + '\\n' }}$written{{ '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}""")

# What a template can do with a text. Nothing of it is in another order in the text that is written.
PROVED = (
    "{{ m.content }}",
    "{{ m['content'] }}",
    "{{ m.get('content') }}",
    "{{ m.content | trim }}",
    "{{ m.content.strip() }}",
    "{{ m.content.lstrip('\\n') + '' }}",
    "{{ '(' + m.content + ')' }}",
    "{{ '(' ~ m.content ~ loop.index ~ ')' }}",
    "{{ m.content | default('none') | string }}",
    "{{ m.content or 'none' }}",
    "{{ m.content if m.content is string else m.content[0].text }}",
    "{{ m.content if m.content is not none and m.content is defined else '' }}",
    "{% if m.content is mapping or m.content is number %}x{% endif %}{{ m.content }}",
    "{% set text = m.content %}{{ text }}",
    "{% set text %}{{ m.content }}!{% endset %}{{ text }}",
    "{% set ns = namespace(text='') %}{% set ns.text = m.content %}{{ ns.text }}",
    "{{ shown(m.content) }}",
    "{% call boxed() %}{{ m.content }}{% endcall %}",
    "{% filter trim %} {{ m.content }} {% endfilter %}",
    "{% generation %}{{ m.content }}{% endgeneration %}",
    "{{ (messages | map(attribute='content') | list)[loop.index0] }}",
    "{{ m.content }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ strftime_now('%Y') }}{{ m.content }}",
)
# The answer to a question becomes an assumption, which texts must meet.
ASSUMED = (
    "{{ 'yes' if m.content == 'a' else m.content }}",
    "{{ m.content + ('!' if 'a' in m.content else '') }}",
    "{{ '?' if m.content.startswith('a') }}{{ m.content }}",
    "{{ m.content }}{{ '?' if m.content.endswith('a') }}",
    "{{ m.content.split('a')[-1] }}",
    "{{ m.content.replace('a', 'b') }}",
    "{{ '?' if m.content in ['a', 'b'] }}{{ m.content }}",
    "{{ m.content if m.content else 'empty' }}",
)
DOUBTED = (
    "{{ m.content | upper }}",
    "{{ m.content.title() }}",
    "{{ m.content[:3] }}{{ m.content }}",
    "{{ m.content | first }}{{ m.content }}",
    "{{ m.content }}{{ m.content | length }}",
    "{{ m.content }}{{ 'long' if m.content | length > 3 }}",
    "{{ m.content | replace('a', 'b') }}",
    "{{ m.content | tojson }}",
    "{{ m | tojson }}{{ m.content }}",
    "{{ m }}",
    "{{ m.content | e }}",
    "{{ m.content | int }}{{ m.content }}",
    "{{ m.content.split()[0] }}{{ m.content }}",
    "{{ m.content.strip('a') }}",
    "{{ m.content | trim('a') }}",
    "{{ '%s' | format(m.content) }}",
    "{{ '{}'.format(m.content) }}",
    "{{ '%s' % m.content }}",
    "{{ m.content * 2 }}",
    "{% for c in m.content %}{{ c }}{% endfor %}",
    "{{ ', '.join([m.content]) }}",
    "{{ [m.content] | join }}",
    "{{ m.content | indent }}",
    "{% set text %}{{ m.content }}{% endset %}{{ text | upper }}",
    "{{ (m.content ~ 'x') | length }}{{ m.content }}",
    "{{ shown(m.content) | upper }}",
    "{{ 'x' if m.content < 'b' }}{{ m.content }}",
    "{{ 'x' if m.content == messages[0].content and loop.index > 1 }}{{ m.content }}",
    "{{ 'x' if m.content in 'abc' }}{{ m.content }}",
    "{{ {'a': 'x'}[m.content] }}{{ m.content }}",
    "{{ {'a': 'x'}.get(m.content, '') }}{{ m.content }}",
    "{{ messages[m.content] }}{{ m.content }}",
    "{{ m.content }}{{ messages | map(attribute='content') | unique | list | length }}",
    "{{ m.content }}{{ messages | map(attribute='content') | join | length }}",
    "{% autoescape true %}{{ m.content }}{% endautoescape %}",
    "{{ m.content | map('upper') | join }}",
    "{{ m.content | select('in', 'abc') | join }}{{ m.content }}",
    "{{ m.content.isdigit() }}{{ m.content }}",
    "{{ (m.content + 'x').startswith('ax') }}{{ m.content }}",
)
RANDOM = "{{ m.content }}{{ range(9) | random }}"
texts = st.one_of(
    st.sampled_from(["a", "b", "ab", "1", "0", "none", "A text & <more>.", "x\n\ny", "ba", "Zz é"]),
    st.text("ab<|>/[1 \n{}&'\"Ä\u00ad", max_size=12),
)
talks = st.lists(texts, min_size=2, max_size=5)


def chat_of(said: list[str]) -> Conversation:
    roles = ("assistant", "user")  # the last message is an answer
    count = len(said)
    return Conversation(
        1, [{"role": roles[(count - 1 - i) % 2], "content": it} for i, it in enumerate(said)]
    )


def template_of(written: str) -> ChatTemplate:
    source = TemplateSource(AROUND.substitute(written=written))
    return ChatTemplate(source, {}, TOKENS, eos=EOS, stop_ids=frozenset([3]))


def is_proved(template: ChatTemplate, chat: Conversation) -> bool:
    outline = OutlinedTurns(template)._outline(chat)
    return outline is not None and outline._proof is not None


def found(turns: OutlinedTurns, chat: Conversation) -> list[Turn] | Finding:
    made = turns.find(chat)
    return made.turns if isinstance(made, OutlinedChat) else made


@pytest.fixture
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs are believed from the first conversation on."""
    monkeypatch.setattr(outlines, "_COMPARED", 0)


@pytest.mark.parametrize("written", (*PROVED, *ASSUMED))
def test_what_joins_and_prints_texts_is_proved(written: str) -> None:
    assert is_proved(template_of(written), chat_of(["b", "c", "b", "c"]))


@pytest.mark.parametrize("written", (*DOUBTED, RANDOM))
def test_what_looks_into_a_text_is_not_proved(written: str) -> None:
    assert not is_proved(template_of(written), chat_of(["b", "c", "b", "c"]))


@pytest.mark.slow
@pytest.mark.usefixtures("_unchecked")
@settings(
    max_examples=300,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    parts=st.lists(st.sampled_from((*PROVED, *ASSUMED, *DOUBTED)), min_size=1, max_size=2),
    said=st.lists(talks, min_size=1, max_size=4),
)
def test_turns_are_those_of_the_renderings(parts: list[str], said: list[list[str]]) -> None:
    template = template_of("".join(parts))
    turns = OutlinedTurns(template)
    for chat in map(chat_of, said):
        assert found(turns, chat) == template.turns(chat)


def test_a_proof_with_a_date_holds_on_this_day(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime

    class Tomorrow(datetime):
        def strftime(self, form: str) -> str:
            return "tomorrow"

    chat = chat_of(["b", "c"])
    outline = OutlinedTurns(template_of("{{ strftime_now('%Y') }}{{ m.content }}"))._outline(chat)
    assert outline is not None
    assert outline.holds_for(["b", "c"], "b\0c")
    monkeypatch.setattr(outlines, "datetime", Tomorrow)
    assert not outline.holds_for(["b", "c"], "b\0c")


def test_a_proof_that_is_wrong_is_noticed_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    template = template_of("{{ m.content | upper }}")
    turns = OutlinedTurns(template)
    chat = chat_of(["b", "c"])
    outline = turns._outline(chat)
    proved = OutlinedTurns(template_of("{{ m.content }}"))._outline(chat)
    assert outline is not None
    assert proved is not None
    outline._proof = proved._proof
    monkeypatch.setattr(turns, "_outline", lambda _: outline)
    assert found(turns, chat) == template.turns(chat)
    assert outline._proof is None
