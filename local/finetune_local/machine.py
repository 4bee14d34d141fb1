"""The settings of the parts, as a chart would write them, for one machine and one user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_api.catalog import CatalogModel
from finetune_api.names import LOCAL_BUCKET
from finetune_gateway.settings import CompletionServer
from finetune_gateway.settings import Settings as GatewaySettings
from finetune_operator.runtimes import Runtime
from finetune_operator.settings import Settings as OperatorSettings

NAMESPACE = "local"  # as that of `finetune run`
OUTPUT = f"s3://{LOCAL_BUCKET}"
RUNTIME = "this-machine"


@dataclass(frozen=True)
class Machine:
    """What is served where."""

    root: Path  # the folder of the local bucket: uploaded files, results, and models
    models: Sequence[CatalogModel]
    port: int
    gpus: int = 0  # 0: everything runs on the CPU
    gpu_memory_gib: float | None = None  # of the smallest GPU

    @property
    def local_bases(self) -> dict[str, Path]:
        """The folders of the base models that are on this machine, by name."""
        start = f"{OUTPUT}/"
        found = {it.name: it.uri for it in self.models if it.uri.startswith(start)}
        return {name: self.root / uri.removeprefix(start) for name, uri in found.items()}

    @property
    def state(self) -> Path:
        """The folder of objects, logs, and the key."""
        return self.root / ".finetune"


def operator_settings(machine: Machine) -> OperatorSettings:
    """Requests and limits of pods mean nothing here, and there is no other user to wait for."""
    return OperatorSettings(
        namespace=NAMESPACE,
        organization=NAMESPACE,
        output=OUTPUT,
        prepare_image="",
        models=list(machine.models),
        runtimes=[
            Runtime(
                name=RUNTIME,
                trainer_image="",
                accelerator="nvidia" if machine.gpus else "cpu",
                gpu_memory_gib=machine.gpu_memory_gib,
            )
        ],
        cpu_job_deadline_seconds=0,
        gang_seconds=0,
        pending_deadline_seconds=0,
        progress_seconds=2,
        poll_seconds=1,
        deletes_models=True,
    )


def gateway_settings(machine: Machine, server: CompletionServer) -> GatewaySettings:
    """A model is deleted with its files, as in OpenAI's API."""
    return GatewaySettings(
        namespace=NAMESPACE,
        output=OUTPUT,
        files=f"{OUTPUT}/uploads",
        files_quota_bytes=0,
        models=list(machine.models),
        server=server,
        deletes_files=True,
        shutdown_seconds=2,
        allow_plain_http=True,
    )
