"""Finds the programs, commands, and options in a command line, and checks that they exist."""

import re
import shlex
from functools import cache

import click

from docs.generator.commands import commands
from finetune_cli.main import finetune

HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?\n.*?^\1$", re.MULTILINE | re.DOTALL)
KNOWN = frozenset(  # programs that a reader has or installs
    "aws cat cd chmod chown cp curl date docker echo eksctl eval export finetune git "  # noqa: SIM905
    "helm jq kubectl llama-server ls make mkdir openai pip printf python3 tail true vllm".split()
)


def command_lines(text: str) -> list[list[str]]:
    """Split shell text into commands, at pipes and other operators, without here-documents."""
    text = HERE_DOCUMENT.sub("", text).replace("\\\n", " ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;()<>\n")
    lexer.whitespace, lexer.whitespace_split = " \t", True
    lines: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if set(word) <= set("|&;()\n"):
            lines.append([])
        elif set(word) <= set("<>&"):
            skip = True  # the file of a redirection
        elif skip:
            skip = False
        elif not (re.fullmatch(r"\w+=.*", word, re.DOTALL) and not lines[-1]):
            lines[-1].append(word)
    inner = [found for line in lines for word in line for found in _inner(word)]
    return [line for line in lines if line] + inner


def _inner(word: str) -> list[list[str]]:
    """Find the commands in `$(...)`."""
    return [
        line for text in re.findall(r"\$\((.*)\)", word, re.DOTALL) for line in command_lines(text)
    ]


@cache
def options_of(words: str) -> frozenset[str]:
    """Return the options of a `finetune` command, including those of the group."""
    command = dict(commands())[words]
    parameters = [*command.params, *finetune.params]
    names = [
        name
        for item in parameters
        if isinstance(item, click.Option)
        for name in (*item.opts, *item.secondary_opts)
    ]
    return frozenset([*names, "-h", "--help", "--version"])


def finetune_problem(words: list[str]) -> str | None:
    """Describe the error in a `finetune` command line; None if there is none."""
    names = {name for name, _ in commands()}
    rest = words[1:]
    while rest and rest[0].startswith("-"):
        rest = (
            rest[2:] if rest[0] in {"-n", "--namespace", "--context", "--kubeconfig"} else rest[1:]
        )
    if not rest:
        return None
    two = " ".join(rest[:2])
    name = two if two in names else rest[0].replace("_", "-")
    if name not in names:
        is_group = any(known.startswith(f"{name} ") for known in names)
        return None if is_group and len(rest) == 1 else f"finetune has no command {two!r}"
    known = options_of(name)
    for word in rest:
        option = word.split("=")[0].replace("_", "-")
        if re.match(r"--?[a-z]", option) and option not in known:
            return f"finetune {name} has no option {option}"
    return None
