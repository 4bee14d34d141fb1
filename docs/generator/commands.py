"""The reference page of the command line, from its parameters."""

from collections.abc import Iterator

import click

from docs.generator.markdown import HEADER, code, sentence, table
from finetune_cli.main import finetune

HEAD = """# The command line: all options

`finetune COMMAND --help` prints the same text. [The command line](../cli.md) explains how to use
the commands. `kubectl finetune` is the same program. You can write an underscore in place of a
dash.

"""
COMMON = ("kubeconfig", "context", "namespace", "help")
COMMON_WORDS = """Every command that needs a cluster accepts `--kubeconfig FILE`, `--context NAME`,
and `-n` or `--namespace NAME`, before or after its name.

"""


def pages() -> dict[str, str]:
    """Map each page to its text."""
    parts = [_command(words, command) for words, command in commands()]
    return {"reference/command-line.md": HEADER + HEAD + COMMON_WORDS + "\n".join(parts)}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield ("models pull", the command) for each command that is not a group."""
    yield from _below(finetune, "")


def _below(group: click.Group, before: str) -> Iterator[tuple[str, click.Command]]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from _below(command, f"{before}{name} ")
            else:
                yield f"{before}{name}", command


def _command(words: str, command: click.Command) -> str:
    with click.Context(command, info_name=f"finetune {words}") as context:
        usage = " ".join(command.collect_usage_pieces(context))
        text = _paragraphs(command.help or "")
        rows = [
            [_flags(item), sentence(_help(item, context))]
            for item in command.params
            if isinstance(item, click.Option) and item.name not in COMMON and not item.hidden
        ]
    options = table(["option", "description"], rows) if rows else ""
    examples = _paragraphs(command.epilog or "")
    parts = [f"## {words}", f"`finetune {words} {usage}`", text, options.strip(), examples]
    return "\n\n".join(filter(None, parts)) + "\n"


def _paragraphs(text: str) -> str:
    """The text of a help. Paragraphs that click does not wrap become code blocks."""
    parts = []
    for part in text.split("\n\n"):
        body = part.strip("\n")
        if body.lstrip().startswith("\b"):
            lines = [line.strip() for line in body.replace("\b", "").strip("\n").splitlines()]
            parts.append("\n".join(["```text", *filter(None, lines), "```"]))
        else:
            parts.append(sentence(" ".join(body.split())))
    return "\n\n".join(parts).strip("\n")


def _flags(option: click.Option) -> str:
    names = ", ".join(code(name) for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {' '.join(code(choice) for choice in option.type.choices)}"
    return f"{names} {option.metavar or option.type.name.upper()}"


def _help(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    return " ".join(record[1].split()) if record else ""
