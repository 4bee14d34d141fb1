"""The texts about the server of a Model: its state, and how to use it. Pure."""

from __future__ import annotations

import shlex

from finetune_api.model import Model
from finetune_api.serving import PORT_COMPLETIONS, ServingStatus, serving_name
from finetune_api.wire import JsonObject
from finetune_cli.commands.models.serving_change import describe_serve, sleep_text
from finetune_cli.terminal.format import local_time

UNANSWERED = "pending"  # in place of a state while the operator has not responded


def server_name(model: Model) -> str:
    """The name of the Deployment and the Service; a status could name other ones."""
    return serving_name(model.metadata.name, model.metadata.uid)


def serving_cell(item: JsonObject) -> str:
    """The state of a Model in a table; empty if it is not served."""
    serving = (item.get("status") or {}).get("serving") or {}
    is_wanted = item.get("spec", {}).get("serve") is not None
    return str(serving.get("state") or (UNANSWERED if is_wanted else ""))


def serving_rows(model: Model, program: str, flags: str) -> list[tuple[str, str]]:
    """Names and values for `models get`. program: as the user called it; flags: to repeat."""
    serve, serving = model.spec.serve, model.status.serving
    requested = (
        "requested",
        describe_serve(serve) if serve else "no server (spec.serve is removed)",
    )
    if serving is None:
        if serve is None:
            return []
        cause = f"the operator has not responded; `{program} doctor{flags}` checks it"
        return [("state", UNANSWERED), ("cause", cause), requested]
    engine = f" ({serving.engine})" if serving.engine else ""
    return [
        ("state", f"{serving.state} since {local_time(serving.since)}"),
        ("cause", serving.message),
        ("reason", serving.reason),
        requested,
        ("runtime", f"{serving.runtime}{engine}" if serving.runtime else ""),
        ("pods", f"{serving.ready_replicas} of {serving.replicas} ready"),
        ("Service", f"{serving.service}, port {PORT_COMPLETIONS}" if serving.service else ""),
    ]


def usage_lines(
    model: Model, serving: ServingStatus, namespace: str, program: str, flags: str
) -> list[tuple[str, str]]:
    """(line, style) below a served model. flags: the cluster flags, which kubectl has as well."""
    stop = (f"Stop it:          {stop_command(model, program, flags)}", "dim")
    if serving.state == "asleep":
        return [stop]
    name = server_name(model)
    url = f"http://{name}.{namespace}.svc:{PORT_COMPLETIONS}/v1"
    port = f"{PORT_COMPLETIONS}:{PORT_COMPLETIONS}"
    lines = [
        (f"In the cluster:   {url}", ""),
        (f"Model:            {model.spec.id}", ""),
        (f"On this machine:  kubectl port-forward service/{shlex.quote(name)} {port}{flags}", ""),
        (f"                  and then http://127.0.0.1:{PORT_COMPLETIONS}/v1", ""),
    ]
    idle = sleep_text(model.spec.serve) if model.spec.serve else ""
    if idle:
        lines.append((f"Idle:             {idle}; only those through the gateway count", ""))
    return [*lines, stop]


def failure_hint(model: Model, serving: ServingStatus, program: str, flags: str) -> str:
    """The next steps after a failed start."""
    remains = (
        "its server remains, and Kubernetes tries again"
        if serving.replicas
        else "spec.serve remains, and the operator tries again"
    )
    show = f"{program} models get {shlex.quote(model.spec.id)}{flags}"
    return (
        f"{remains}, so the model is ready by itself once the cause is gone. `{show}` shows the "
        f"state, and `{stop_command(model, program, flags)}` stops it"
    )


def interrupt_lines(model: Model, program: str, flags: str) -> list[str]:
    """The lines after Ctrl-C."""
    quoted = shlex.quote(model.spec.id)
    return [
        f"Stopped waiting. The operator continues to serve {model.spec.id}.",
        f"To wait again: {program} models serve {quoted}{flags}",
        f"To stop it:    {stop_command(model, program, flags)}",
    ]


def stop_command(model: Model, program: str, flags: str) -> str:
    return f"{program} models stop {shlex.quote(model.spec.id)}{flags}"
