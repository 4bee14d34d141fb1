"""The program: its commands by name, each imported only when it is called."""

import sys
from pathlib import PurePath

import click

from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags
from finetune_cli.terminal.lazy_group import LazyGroup
from finetune_cli.terminal.program import EXIT_INTERRUPTED, program

COMMANDS = {
    "create": ("finetune_cli.commands.create.command:command", "Start a fine-tune, and follow it."),
    "list": ("finetune_cli.commands.list:command", "The fine-tunes of a namespace."),
    "get": ("finetune_cli.commands.get:command", "Everything that is known of one."),
    "follow": ("finetune_cli.commands.follow.command:command", "Watch one until it ends."),
    "cancel": ("finetune_cli.commands.steer:cancel", "End one for good; keeps what it has."),
    "suspend": ("finetune_cli.commands.steer:suspend", "Free its GPUs after a checkpoint."),
    "resume": ("finetune_cli.commands.steer:resume", "Go on from the checkpoint."),
    "results": (
        "finetune_cli.commands.results.command:command",
        "results.csv, as text or as a plot.",
    ),
    "report": ("finetune_cli.commands.report:command", "Fetch report.html."),
    "logs": ("finetune_cli.commands.logs:command", "What the pods print."),
    "run": ("finetune_cli.commands.run.command:command", "Train on this machine, with no cluster."),
    "models": (
        "finetune_cli.commands.models.command:command",
        "Fine-tuned models: list, get, pull.",
    ),
    "complete": (
        "finetune_cli.commands.complete.command:command",
        "Let a fine-tuned model answer.",
    ),
    "prepare-data": (
        "finetune_cli.commands.prepare_data.command:command",
        "Check and convert data files.",
    ),
    "tokenize": ("finetune_cli.commands.tokenize:command", "How a text becomes tokens."),
    "doctor": (
        "finetune_cli.commands.doctor.command:command",
        "What is missing, and how to mend it.",
    ),
    "completion": (
        "finetune_cli.commands.shell_completion:command",
        "Completion for bash, zsh and fish.",
    ),
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        # the old tool's --n_epochs
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
    epilog="Exit codes: 0 done, 1 error, 2 wrong command line, 3 the fine-tune failed, 65 wrong "
    "data, 130 Ctrl-C.",
)
@cluster_flags
@click.version_option(package_name="finetune-operator", prog_name="finetune")
@click.pass_context
def finetune(ctx: click.Context, place: ClusterTarget) -> None:
    """Fine-tune models on your own Kubernetes."""
    ctx.obj = place


def main() -> None:
    """Entry of `finetune` and `kubectl-finetune`: an error is a sentence, never a traceback."""
    name = program(PurePath(sys.argv[0]).name)
    try:
        code = finetune.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt | EOFError):
            code = EXIT_INTERRUPTED
        else:
            click.echo("Nothing was done.", err=True)
            code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Exception as error:
        from finetune_cli.terminal.errors import complain

        code = complain(error)
    raise SystemExit(code if isinstance(code, int) else 0)
