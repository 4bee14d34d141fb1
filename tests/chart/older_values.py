"""The values of earlier charts, as `helm upgrade --reuse-values` still uses them.

`older_values.jsonl` has a line for each different values.yaml in the history. After you change the
values of the chart, add a line:

    python -m tests.chart.older_values
"""

import json
import subprocess
from functools import cache
from pathlib import Path

import yaml

from finetune_api.wire import JsonObject

ROOT = Path(__file__).parents[2]
VALUES = "charts/finetune-operator/values.yaml"
RECORD = Path(__file__).with_name("older_values.jsonl")


@cache
def recorded() -> list[JsonObject]:
    """The values of each line, the oldest first."""
    return [json.loads(line) for line in RECORD.read_text().splitlines()]


def current() -> JsonObject:
    values: JsonObject = yaml.safe_load((ROOT / VALUES).read_text())
    return values


def history() -> list[JsonObject]:
    """The values of each commit, the oldest first. Empty without a whole git history."""
    if _git("rev-parse", "--is-shallow-repository").strip() != "false":
        return []
    commits = _git("log", "--reverse", "--format=%H", "--", VALUES).split()
    return [yaml.safe_load(_git("show", f"{commit}:{VALUES}")) for commit in commits]


def everything(values: JsonObject) -> JsonObject:
    """The values with every switch on, for a release that serves all namespaces."""

    def switched(value: object) -> object:
        if isinstance(value, dict):
            return {key: switched(inner) for key, inner in value.items()}
        return True if isinstance(value, bool) else value

    made = {key: switched(value) for key, value in values.items()}
    monitors = made.get("metrics", {})
    if "tokenReview" in monitors:  # which a PodMonitor cannot send
        monitors["podMonitor"]["enabled"] = False
    if "gateway" in made:  # which needs a place for its files, and an Ingress a host
        made["gateway"]["files"]["prefix"] = "s3://acme/uploads"
        made["gateway"]["ingress"]["host"] = "finetune.example.com"
        if "server" in made["gateway"]:  # which needs a place for its models
            made["output"] = "s3://acme/finetunes"
    return made


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def main() -> None:
    known = recorded() if RECORD.exists() else []
    for values in [*history(), current()]:
        if values not in known:
            known.append(values)
    lines = (json.dumps(values, ensure_ascii=False, separators=(",", ":")) for values in known)
    RECORD.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
