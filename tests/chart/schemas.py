"""JSON schemas for kubeconform without network access, from Kubernetes' own OpenAPI file.

The file comes with the Go module that the development cluster is built from.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

REFERENCE = "#/definitions/"


def swagger_file() -> Path | None:
    """Find the newest `swagger.json` in Go's module cache."""
    cache = os.environ.get("GOMODCACHE")
    if not cache and (go := shutil.which("go")):
        command = [go, "env", "GOMODCACHE"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cache = done.stdout.strip()
    if not cache:
        return None
    found = sorted(Path(cache, "k8s.io").glob("kubernetes@*/api/openapi-spec/swagger.json"))
    return found[-1] if found else None


def write_schemas(swagger: Path, folder: Path) -> str:
    """Write `<kind>-<group>-<version>.json` files; return kubeconform's schema location."""
    definitions: dict[str, dict[str, Any]] = json.loads(swagger.read_text())["definitions"]
    for name, schema in definitions.items():
        if name.endswith(".IntOrString"):
            definitions[name] = {"type": ["string", "integer"]}
        elif name.endswith(".Quantity"):
            definitions[name] = {"type": ["string", "number"]}
        elif "properties" in schema:
            schema["additionalProperties"] = False
    (folder / "definitions.json").write_text(json.dumps({"definitions": definitions}))
    _write_monitoring(folder)
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            group = kind["group"].split(".")[0]
            stem = "-".join(part for part in (kind["kind"].lower(), group, kind["version"]) if part)
            reference = {"$ref": f"definitions.json{REFERENCE}{name}"}
            (folder / f"{stem}.json").write_text(json.dumps(reference))
    return f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"


def _write_monitoring(folder: Path) -> None:
    """Write strict schemas of the Prometheus operator, with the fields that the chart sets."""
    text, flag = {"type": "string"}, {"type": "boolean"}
    texts = {"type": "object", "additionalProperties": text}
    selector = _object(matchLabels=texts)
    endpoint = _object(
        port=text,
        portNumber={"type": "integer"},
        path=text,
        interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
        honorLabels=flag,
        bearerTokenFile=text,
    )
    pod_endpoint = _object(
        **{key: value for key, value in endpoint["properties"].items() if key != "bearerTokenFile"}
    )
    everywhere = _object(any=flag, matchNames={"type": "array", "items": text})
    rule = _object(alert=text, expr=text, labels=texts, annotations=texts, **{"for": text})
    rule["required"] = ["expr"]
    specs = {
        "ServiceMonitor": _object(
            selector=selector,
            endpoints={"type": "array", "items": endpoint},
            namespaceSelector=everywhere,
        ),
        "PodMonitor": _object(
            selector=selector,
            podMetricsEndpoints={"type": "array", "items": pod_endpoint},
            podTargetLabels={"type": "array", "items": text},
            namespaceSelector=everywhere,
        ),
        "PrometheusRule": _object(
            groups={
                "type": "array",
                "items": _object(name=text, rules={"type": "array", "items": rule}),
            }
        ),
    }
    for kind, spec in specs.items():
        schema = _object(apiVersion=text, kind=text, metadata={"type": "object"}, spec=spec)
        (folder / f"{kind.lower()}-monitoring-v1.json").write_text(json.dumps(schema))


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}
