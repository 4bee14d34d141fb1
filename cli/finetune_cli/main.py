"""The entry point. Each command is imported only when it is called."""

import sys
from pathlib import PurePath

import click

from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags
from finetune_cli.terminal import output
from finetune_cli.terminal.lazy_group import LazyGroup
from finetune_cli.terminal.program import EXIT_INTERRUPTED, program_name

COMMANDS = {
    "create": (
        "finetune_cli.commands.create.command:command",
        "Create a fine-tune and follow it.",
    ),
    "list": ("finetune_cli.commands.list:command", "List the fine-tunes in a namespace."),
    "get": ("finetune_cli.commands.get:command", "Show a fine-tune in detail."),
    "follow": (
        "finetune_cli.commands.follow.command:command",
        "Show events and progress until a fine-tune ends.",
    ),
    "cancel": (
        "finetune_cli.commands.steer:cancel",
        "End fine-tunes permanently and keep partial results.",
    ),
    "suspend": (
        "finetune_cli.commands.steer:suspend",
        "Save a checkpoint and release the GPUs.",
    ),
    "resume": (
        "finetune_cli.commands.steer:resume",
        "Continue suspended fine-tunes from their checkpoints.",
    ),
    "results": (
        "finetune_cli.commands.results.command:command",
        "Print or plot results.csv.",
    ),
    "report": ("finetune_cli.commands.report:command", "Download the training report."),
    "logs": ("finetune_cli.commands.logs:command", "Print the logs of a fine-tune's pods."),
    "run": (
        "finetune_cli.commands.run.command:command",
        "Train on this machine, without a cluster.",
    ),
    "serve": (
        "finetune_cli.commands.serve:command",
        "Serve OpenAI's API on this machine, without a cluster.",
    ),
    "models": (
        "finetune_cli.commands.models.command:command",
        "List, show, download, serve, or delete fine-tuned models.",
    ),
    "keys": (
        "finetune_cli.commands.keys.command:command",
        "Create, list, or revoke API keys of the gateway.",
    ),
    "complete": (
        "finetune_cli.commands.complete.command:command",
        "Generate text with a fine-tuned model.",
    ),
    "evaluate": (
        "finetune_cli.commands.evaluate.command:command",
        "Grade the answers of a fine-tuned model.",
    ),
    "prepare-data": (
        "finetune_cli.commands.prepare_data.command:command",
        "Check and convert data files.",
    ),
    "tokenize": (
        "finetune_cli.commands.tokenize.command:command",
        "Show tokens, and which of them are learned.",
    ),
    "doctor": (
        "finetune_cli.commands.doctor.command:command",
        "Diagnose setup problems and suggest fixes.",
    ),
    "completion": (
        "finetune_cli.commands.shell_completion:command",
        "Print a shell completion script.",
    ),
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        # OpenAI's command line has --n_epochs
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
    epilog="Exit codes: 0 done, 1 error, 2 invalid command line or manifest, 3 FineTune failed or "
    "cancelled, 4 evaluated model not better, 65 invalid data, 130 Ctrl-C.",
)
@cluster_flags
@click.version_option(package_name="finetune-operator", prog_name="finetune")
@click.pass_context
def finetune(ctx: click.Context, target: ClusterTarget) -> None:
    """Fine-tune models on your own Kubernetes cluster."""
    output.sanitize_libraries()
    ctx.obj = target


def main() -> None:
    """Run `finetune` or `kubectl-finetune`; an error is printed as a sentence, not a traceback."""
    name = program_name(PurePath(sys.argv[0]).name)
    try:
        code = finetune.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt | EOFError):
            code = EXIT_INTERRUPTED
        else:
            output.show("Aborted: nothing was changed.", is_error=True)
            code = 1
    except click.ClickException as error:
        output.show_usage_error(error)
        code = error.exit_code
    except Exception as error:
        from finetune_cli.terminal.errors import print_error

        code = print_error(error)
    raise SystemExit(code if isinstance(code, int) else 0)
