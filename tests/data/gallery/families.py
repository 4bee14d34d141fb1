"""The gallery: one row for each family of chat models.

The templates are our own. Each has the structure of a real family: where the system text and the
tools are, what opens and ends a turn, and how a turn changes once more follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tests.data.gallery.vocabularies import byte_level, sentencepiece

TEMPLATES = Path(__file__).parent / "templates"

# What a conversation can need of a template.
SYSTEM = "a system message"
ANY_ORDER = "two messages of one role in a row"
TOOLS = "descriptions of tools"
CALLS = "tool calls and their results"
PARALLEL = "two calls in one message"
CALL_CONTENT = "a text next to a call"
ANY_ID = "ids of any length"
REASONING = "reasoning"
CALL_REASONING = "reasoning before a call"

_CALLS = {TOOLS, CALLS, PARALLEL, CALL_CONTENT, ANY_ID}


@dataclass(frozen=True)
class End:
    """What ends a turn, and how it gets there.

    how: the template writes it after the turn ("template"), or only once another message follows
    ("following"), or not at all, so that the eos token is added ("added")
    """

    text: str
    how: str = "template"


@dataclass(frozen=True)
class Family:
    """A template with its tokenizer.

    tool_supports: what its second template supports, which is for conversations with tools
    stops: the tokens that end generation, by the base model's generation_config.json
    file: the template's file, if it is not named as the family
    call: what ends a turn with a call, if it is not what ends an answer
    arguments: how the template reads the arguments of a call, as an "object" or as a "text"
    is_none: the template writes calls only where the content is none
    opening: for templates whose generation prompt is not a prefix of the turn: what begins the
        message before a turn, and the text after it with which the generation prompt ends
    """

    name: str
    tokenizer: Callable[[], Tokenizer]
    eos: str
    answer: End
    supports: frozenset[str]
    tool_supports: frozenset[str] | None = None
    stops: tuple[str, ...] = ()
    bos: str = ""
    pad: str = ""
    call: End | None = None
    file: str = ""
    tool_template: str = ""
    arguments: str = "object"
    is_none: bool = False
    opening: tuple[tuple[str, str], ...] = ()

    @property
    def template(self) -> str:
        return (TEMPLATES / f"{self.file or self.name}.jinja").read_text(encoding="utf-8")

    @property
    def all_supports(self) -> frozenset[str]:
        """What either of the templates supports."""
        return self.supports | (self.tool_supports or frozenset())

    def is_supported(self, needs: set[str], *, has_tools: bool) -> bool:
        """Whether a conversation that needs this can be learned."""
        if has_tools and self.tool_supports is not None:
            return needs <= self.tool_supports
        return needs <= self.supports

    def end(self, message: Mapping[str, Any]) -> End:
        """What ends the turn of an assistant message."""
        return self.call if self.call and message.get("tool_calls") else self.answer

    def write(self, folder: Path) -> Path:
        """The files of a base model, without weights."""
        folder.mkdir(parents=True)
        tokenizer = self.tokenizer()
        tokenizer.save(str(folder / "tokenizer.json"))
        named = {"eos_token": self.eos, "bos_token": self.bos, "pad_token": self.pad}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": 0}
        settings |= {key: text for key, text in named.items() if text}
        stops = [tokenizer.token_to_id(text) for text in (self.stops or (self.eos,))]
        config = {"model_type": "llama", "vocab_size": tokenizer.get_vocab_size()}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")
        if self.tool_template:
            (folder / "additional_chat_templates").mkdir()
            text = (TEMPLATES / f"{self.tool_template}.jinja").read_text(encoding="utf-8")
            (folder / "additional_chat_templates" / "tool_use.jinja").write_text(text)
        return folder


def _family(
    name: str, tokenizer: partial[Tokenizer], eos: str, end: End, *supports: str, **more: Any
) -> Family:
    return Family(name, tokenizer, eos, end, frozenset(supports), **more)


IM_END = End("<|im_end|>")
TEXT = "<|endoftext|>"
_CHATML = partial(byte_level, TEXT, "<|im_start|>", "<|im_end|>")
_QWEN = partial(
    byte_level,
    *(TEXT, "<|im_start|>", "<|im_end|>"),
    plain=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
)
_QWEN3 = partial(_QWEN, plain=(*_QWEN.keywords["plain"], "<think>", "</think>"))
_LLAMA3 = partial(
    byte_level,
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
    bos="<|begin_of_text|>",
)
_LLAMA3_MORE = {
    "bos": "<|begin_of_text|>",
    "stops": ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
}
_MISTRAL = (
    *("<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
_GEMMA = partial(
    sentencepiece,
    *("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"),
    scheme="never",
    plain=("\n\n",),
    bos="<bos>",
)
_DEEPSEEK_SPECIAL = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")
_DEEPSEEK_PLAIN = (
    *("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
    *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>"),
    *("<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
)
_DEEPSEEK = partial(byte_level, *_DEEPSEEK_SPECIAL, plain=_DEEPSEEK_PLAIN, bos=_DEEPSEEK_SPECIAL[0])
_GPT_OSS = partial(
    byte_level,
    *(TEXT, "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>"),
    "<|call|>",
)
_COMMAND = (
    *("<PAD>", "<UNK>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>"),
    *("<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
)
_GLM = (TEXT, "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")

FAMILIES = {
    family.name: family
    for family in (
        _family("chatml", _CHATML, "<|im_end|>", IM_END, SYSTEM, ANY_ORDER, pad=TEXT),
        _family("chatml_default", _CHATML, TEXT, IM_END, SYSTEM, ANY_ORDER, pad=TEXT),
        _family(
            "chatml_open_end",
            _CHATML,
            "<|im_end|>",
            End("<|im_end|>", "following"),
            *(SYSTEM, ANY_ORDER),
            pad=TEXT,
        ),
        _family("generation_blocks", _CHATML, TEXT, IM_END, SYSTEM, ANY_ORDER),
        # the eos token of this tokenizer lacks the flag `special`
        _family(
            "unmarked_eos",
            partial(byte_level, TEXT, "<|im_start|>", plain=("<|im_end|>",)),
            "<|im_end|>",
            IM_END,
            *(SYSTEM, ANY_ORDER),
            file="chatml",
        ),
        _family(
            "llama2",
            partial(sentencepiece, "<s>", "</s>", scheme="legacy", bos="<s>"),
            "</s>",
            End("</s>"),
            SYSTEM,
            bos="<s>",
        ),
        _family(
            "llama3_1",
            _LLAMA3,
            "<|eot_id|>",
            End("<|eot_id|>"),
            *(SYSTEM, ANY_ORDER, TOOLS, CALLS, ANY_ID),
            **_LLAMA3_MORE,
        ),
        _family(
            "llama3_2",
            _LLAMA3,
            "<|eot_id|>",
            End("<|eot_id|>"),
            *(SYSTEM, ANY_ORDER, TOOLS, CALLS, ANY_ID),
            **_LLAMA3_MORE,
        ),
        _family(
            "mistral_v1",
            partial(sentencepiece, "<s>", "</s>", scheme="legacy", bos="<s>"),
            "</s>",
            End("</s>"),
            bos="<s>",
        ),
        _family(
            "mistral_v3",
            partial(sentencepiece, *_MISTRAL, scheme="first", bos="<s>"),
            "</s>",
            End("</s>"),
            *(SYSTEM, TOOLS, CALLS, PARALLEL),
            bos="<s>",
            opening=(("[INST]", "[/INST]"), ("[TOOL_RESULTS]", "[/TOOL_RESULTS]")),
        ),
        _family(
            "mistral_system_last",
            partial(byte_level, *_MISTRAL, bos="<s>"),
            "</s>",
            End("</s>"),
            *(SYSTEM, ANY_ORDER, TOOLS, CALLS, PARALLEL, CALL_CONTENT),
            bos="<s>",
        ),
        _family("gemma2", _GEMMA, "<eos>", End("<end_of_turn>"), bos="<bos>", pad="<pad>"),
        _family(
            "gemma3",
            _GEMMA,
            "<eos>",
            End("<end_of_turn>"),
            SYSTEM,
            bos="<bos>",
            pad="<pad>",
            stops=("<eos>", "<end_of_turn>"),
        ),
        # the layout of the base models: their eos token is not what ends a turn
        _family("qwen2_5", _QWEN, TEXT, IM_END, SYSTEM, ANY_ORDER, *_CALLS, pad=TEXT),
        _family(
            "qwen3",
            _QWEN3,
            "<|im_end|>",
            IM_END,
            *(SYSTEM, ANY_ORDER, *_CALLS, REASONING, CALL_REASONING),
            pad=TEXT,
            stops=("<|im_end|>", TEXT),
        ),
        _family(
            "qwen3_thinking",
            _QWEN3,
            "<|im_end|>",
            IM_END,
            *(SYSTEM, ANY_ORDER, *_CALLS, REASONING, CALL_REASONING),
            pad=TEXT,
            stops=("<|im_end|>", TEXT),
        ),
        _family(
            "deepseek_v3",
            _DEEPSEEK,
            "<｜end▁of▁sentence｜>",
            End("<｜end▁of▁sentence｜>"),
            *(SYSTEM, ANY_ORDER, CALLS, PARALLEL, ANY_ID),
            bos="<｜begin▁of▁sentence｜>",
            pad="<｜▁pad▁｜>",
            arguments="text",
            is_none=True,
        ),
        _family(
            "deepseek_r1",
            _DEEPSEEK,
            "<｜end▁of▁sentence｜>",
            End("<｜end▁of▁sentence｜>"),
            *(SYSTEM, ANY_ORDER, REASONING),
            bos="<｜begin▁of▁sentence｜>",
            pad="<｜end▁of▁sentence｜>",
        ),
        _family(
            "gpt_oss",
            _GPT_OSS,
            "<|return|>",
            End("<|return|>"),
            *(SYSTEM, ANY_ORDER, TOOLS, CALLS, CALL_CONTENT, ANY_ID, REASONING, CALL_REASONING),
            call=End("<|call|>"),
            opening=(
                ("<|start|>user", "<|start|>assistant"),
                (" to=assistant", "<|start|>assistant"),
            ),
            pad=TEXT,
            stops=("<|return|>", TEXT, "<|call|>"),
        ),
        _family(
            "phi3",
            partial(
                sentencepiece,
                *("<s>", TEXT, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
                scheme="legacy",
                strips=(False, True),
            ),
            TEXT,
            End("<|end|>"),
            *(SYSTEM, ANY_ORDER),
            bos="<s>",
            pad=TEXT,
            stops=(TEXT, "<|assistant|>", "<|end|>"),
        ),
        _family(
            "phi4",
            partial(
                byte_level,
                *(TEXT, "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
                strips=(True, True),
            ),
            "<|im_end|>",
            IM_END,
            *(SYSTEM, ANY_ORDER),
            pad=TEXT,
        ),
        _family(
            "granite3",
            partial(
                byte_level,
                *("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"),
            ),
            "<|end_of_text|>",
            End("<|end_of_text|>"),
            *(SYSTEM, ANY_ORDER, TOOLS, CALLS, PARALLEL, ANY_ID),
            bos="<|end_of_text|>",
            pad="<|end_of_text|>",
        ),
        _family(
            "command_r",
            partial(byte_level, *_COMMAND, bos="<BOS_TOKEN>"),
            "<|END_OF_TURN_TOKEN|>",
            End("<|END_OF_TURN_TOKEN|>"),
            SYSTEM,
            tool_supports=frozenset({SYSTEM, ANY_ORDER, *_CALLS}),
            bos="<BOS_TOKEN>",
            pad="<PAD>",
            tool_template="command_r_tool_use",
        ),
        _family(
            "nemotron",
            partial(
                byte_level,
                *("<unk>", "<s>", "</s>", "<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>"),
                plain=("<think>", "</think>"),
                bos="<s>",
            ),
            "<SPECIAL_12>",
            End("<SPECIAL_12>"),
            *(SYSTEM, ANY_ORDER, *_CALLS, REASONING, CALL_REASONING),
            bos="<s>",
            stops=("</s>", "<SPECIAL_12>"),
        ),
        _family(
            "glm4_5",
            partial(byte_level, *_GLM, plain=("<think>", "</think>", "<tool_call>", "<arg_key>")),
            TEXT,
            End("<|user|>", "following"),
            *(SYSTEM, ANY_ORDER, *_CALLS, REASONING, CALL_REASONING),
            call=End("<|observation|>", "following"),
            pad=TEXT,
            stops=(TEXT, "<|user|>", "<|observation|>"),
        ),
        _family("olmo2", partial(byte_level, TEXT), TEXT, End(TEXT), SYSTEM, ANY_ORDER, bos=TEXT),
        _family(
            "alpaca",
            partial(sentencepiece, "<s>", "</s>", scheme="always", bos="<s>"),
            "</s>",
            End("</s>", "added"),
            *(SYSTEM, ANY_ORDER),
            bos="<s>",
        ),
    )
}
