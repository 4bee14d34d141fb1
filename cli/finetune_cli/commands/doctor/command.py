"""`finetune doctor`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.errors import CommandError

TIMEOUT_SECONDS = 10
COMMANDS = ("finetune ", "helm ", "kubectl ")  # a remedy that starts with one of them is a command
COLORS = {"ok": "green", "unknown": "dim", "warning": "yellow", "error": "bold red"}


@click.command()
@click.option(
    "--upload-to", metavar="S3", help="S3 prefix to check.  [default: the prefix saved by `create`]"
)
@output_flag
@cluster_flags
def command(*, upload_to: str | None, output: str | None, target: ClusterTarget) -> None:
    """Diagnose setup problems and suggest fixes.

    The command checks the cluster, CRDs, your permissions, the operator, the Models that it serves,
    the S3 credentials of the pods, GPUs and their drivers, and S3 access from this machine:
    certificates, proxy, names, and credentials. It warns about an S3 store without ETags,
    conditional requests, or a list of unfinished uploads. It reports the hardware
    and the network in the log of the newest training on GPUs. It changes nothing, except that it
    writes a small object to S3 and deletes it. The exit code is 1 if a requirement is missing.
    """
    found: list[Finding] = []
    screen = Screen()
    for finding in _findings(target, upload_to):
        found.append(finding)
        if not output:
            start = f"{finding.level:<8} "
            screen.hanging(start, f"{finding.check}: {finding.detail}", COLORS[finding.level])
            if finding.remedy:
                _show_remedy(screen, finding.remedy)
    if output:
        show_objects([finding.record() for finding in found], output)
    raise SystemExit(1 if any(finding.level == "error" for finding in found) else 0)


def _show_remedy(screen: Screen, remedy: str) -> None:
    """Print a command in one line for copying; wrap other text between words."""
    start = " " * 9
    if remedy.startswith(COMMANDS):
        screen.say(start + remedy)
    else:
        screen.hanging(start, remedy)


def _findings(target: ClusterTarget, upload_to: str | None) -> Iterator[Finding]:
    from finetune_cli.commands.doctor.cluster_checks import cluster_findings
    from finetune_cli.commands.doctor.storage_checks import storage_findings

    try:
        yield from cluster_findings(connect(target, timeout=TIMEOUT_SECONDS))
    except CommandError as error:
        yield Finding("error", "cluster", error.message, error.hint)
    yield from storage_findings(upload_to)
