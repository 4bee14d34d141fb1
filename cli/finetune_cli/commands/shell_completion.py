"""`finetune completion`: prints the completion script of a shell."""

from __future__ import annotations

import click

from finetune_cli.terminal.output import show_document

# To complete a plugin, kubectl runs kubectl_complete-NAME and expects the output of cobra: one
# candidate in each line, then a directive (4: no file names).
KUBECTL = """#!/bin/sh
# Install this script on PATH as kubectl_complete-finetune and make it executable.
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
    """Print a script that completes commands, options, and fine-tune names.

    \b
    bash:     finetune completion bash >> ~/.bashrc
    zsh:      finetune completion zsh >> ~/.zshrc
    fish:     finetune completion fish > ~/.config/fish/completions/finetune.fish
    kubectl:  finetune completion kubectl > ~/bin/kubectl_complete-finetune
    """
    if shell == "kubectl":
        show_document(KUBECTL, ends_line=False)
        return
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    show_document(kind(root, {}, "finetune", "_FINETUNE_COMPLETE").source(), ends_line=False)
