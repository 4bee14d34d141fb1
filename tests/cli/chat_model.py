"""A base model without weights, with a chat template, whose tokens are the words of one chat."""

import json
from pathlib import Path
from typing import Any

from tests.data.builders import write_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_REASONING = (  # earlier turns lose their reasoning
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ m.reasoning_content or '' }}\n"
    "</think>\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_END = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TALK = (
    ("system", "You answer questions about parcels."),
    ("user", "Where is my parcel?"),
    ("assistant", "It left our warehouse this morning.\nIt arrives tomorrow."),
    ("user", "Can I change the address?"),
    ("assistant", "Yes, until 6 p.m."),
)
MESSAGES = [{"role": role, "content": content} for role, content in TALK]
CHAT = {"messages": MESSAGES}


def write_chat_model(folder: Path, template: str = CHATML, **settings: Any) -> Path:
    """tokenizer.json and the configs of a model."""
    return write_tokenizer(
        folder,
        texts=[*(text for part in TALK for text in part)],
        special=("<|im_start|>", "<|im_end|>"),
        size=1000,
        chat_template=template,
        **settings,
    )


def lines(*values: Any) -> str:
    """JSONL."""
    return "".join(json.dumps(value) + "\n" for value in values)
