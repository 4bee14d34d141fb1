"""Words of pods and of the API server cannot forge lines of the log or hide in an Event."""

import io
import logging
from typing import Any

from finetune_api.finetune_status import EventEntry
from finetune_api.text.log_format import LogFormatter
from finetune_operator.build.kubernetes_event import build_event
from tests.support.objects import a_finetune

FOREIGN = "quota\n2026-11-29 00:00:00,000 INFO finetune_operator: forged\r\x1b[2J\x9b31m\u202e"


def logged(*arguments: Any, **options: Any) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter())
    logger = logging.Logger("finetune_operator")
    logger.addHandler(handler)
    logger.warning(*arguments, **options)
    return stream.getvalue()


def test_a_message_is_one_line_of_the_log() -> None:
    text = logged("refused: %s", FOREIGN)
    assert text.endswith(
        "WARNING finetune_operator: refused: quota\\n2026-11-29 00:00:00,000 INFO "
        "finetune_operator: forged\\r\\x1b[2J\\x9b31m\\u202e\n"
    )
    assert text.count("\n") == 1


def test_the_words_of_an_exception_do_not_start_a_line() -> None:
    try:
        raise ValueError(FOREIGN)
    except ValueError:
        first, *others = logged("failed", exc_info=True).splitlines()
    assert first.endswith("WARNING finetune_operator: failed")
    assert all(line.startswith("  ") for line in others)
    assert all(line.isprintable() for line in others)


def test_an_event_has_no_control_characters() -> None:
    entry = EventEntry(at="2026-11-21T12:00:00Z", reason="Said", message=FOREIGN)
    event = build_event(a_finetune(), entry)
    assert event["message"].isprintable()
    assert "forged\\r\\x1b[2J" in event["message"]
