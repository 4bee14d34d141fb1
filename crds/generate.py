"""Write the custom resource definitions to this folder and to the chart, and the chart's defaults.

python crds/generate.py           write the files
python crds/generate.py --check   only compare; the exit code is 1 if a file differs
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from finetune_api.crd import finetune_crd, model_crd
from finetune_api.wire import JsonObject

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "finetune-operator"
FOLDERS = (ROOT / "crds", CHART / "files" / "crds")
DEFAULTS = CHART / "files" / "defaults.json"
HEADER = "# Generated from api/finetune_api by `make generate`. Change the models, not this file.\n"


def rendered() -> dict[Path, str]:
    """Map each file to its content."""
    crds = {"finetunes.yaml": _yaml(finetune_crd()), "models.yaml": _yaml(model_crd())}
    found = {folder / name: text for folder in FOLDERS for name, text in crds.items()}
    return {**found, DEFAULTS: json.dumps(chart_defaults(), indent=1) + "\n"}


def chart_defaults() -> JsonObject:
    """The chart's values as a tree of sections, for values of a release that are incomplete.

    Helm offers a template no values.yaml. A section is a map whose keys the chart defines; other
    maps, such as labels, are values as a whole.
    """
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return _section(values, json.loads((CHART / "values.schema.json").read_text()))


def _section(values: JsonObject, schema: JsonObject) -> JsonObject:
    made: JsonObject = {"values": {}, "sections": {}}
    for key, value in values.items():
        inner = schema["properties"][key]
        if isinstance(value, dict) and inner.get("additionalProperties") is False:
            made["sections"][key] = _section(value, inner)
        else:
            made["values"][key] = value
    return made


def _yaml(crd: JsonObject) -> str:
    return HEADER + yaml.safe_dump(crd, sort_keys=False, width=100)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write or check the generated CRDs.")
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    stale = []
    for path, text in rendered().items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.relative_to(ROOT))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale:
        print(f"{'differs from its source, run `make generate`' if check else 'written'}: {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
