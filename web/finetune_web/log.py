"""The log of a process: its option, and its handler."""

from __future__ import annotations

import argparse
import logging

from finetune_api.text.log_format import LogFormatter


def add_log_level(parser: argparse.ArgumentParser) -> None:
    """Add the option --log-level."""
    parser.add_argument(
        "--log-level",
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        help="Lowest level of log messages (default: %(default)s).",
    )


def configure_log(level: str) -> None:
    """Write the messages of this process to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=level, handlers=[handler])
