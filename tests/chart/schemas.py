"""JSON schemas for kubeconform without the network: made from Kubernetes' own OpenAPI file.

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
    """The newest `swagger.json` in Go's module cache."""
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
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            group = kind["group"].split(".")[0]
            stem = "-".join(part for part in (kind["kind"].lower(), group, kind["version"]) if part)
            reference = {"$ref": f"definitions.json{REFERENCE}{name}"}
            (folder / f"{stem}.json").write_text(json.dumps(reference))
    return f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
