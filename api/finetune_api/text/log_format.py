"""The format of the logs: one line for each message, whatever others say in it."""

import logging

from finetune_api.text.sanitizing import sanitize

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogFormatter(logging.Formatter):
    """Escapes control characters and line breaks in messages, so that none can forge a line."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - a name of logging
        return sanitize(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - a name of logging
        """A traceback on lines that are indented: the words of an exception can have lines, too."""
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(f"  {sanitize(line)}" for line in lines)
