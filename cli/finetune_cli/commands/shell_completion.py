"""`finetune completion`: the script that a shell sources."""

from __future__ import annotations

import click

# kubectl calls a program of this name for its plugin and wants cobra's answer: a line each, then
# a directive (4: no file names).
KUBECTL = """#!/bin/sh
# Put it on PATH as kubectl_complete-finetune, executable.
words="finetune"
count=0
last=""
for word in "$@"; do
  [ "$count" -gt 0 ] && words="$words $last"
  last="$word"
  count=$((count + 1))
done
COMP_WORDS="$words $last" COMP_CWORD="$count" _FINETUNE_COMPLETE=bash_complete finetune \
  | sed -n 's/^plain,//p'
echo ":4"
"""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "kubectl"]))
def command(*, shell: str) -> None:
    """Print the script that completes commands, options and names of fine-tunes.

    \b
    bash:     finetune completion bash >> ~/.bashrc
    zsh:      finetune completion zsh >> ~/.zshrc
    fish:     finetune completion fish > ~/.config/fish/completions/finetune.fish
    kubectl:  a program named kubectl_complete-finetune for `kubectl finetune`
    """
    if shell == "kubectl":
        click.echo(KUBECTL, nl=False)
        return
    from click.shell_completion import get_completion_class

    from finetune_cli.main import finetune

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(finetune, {}, "finetune", "_FINETUNE_COMPLETE").source(), nl=False)
