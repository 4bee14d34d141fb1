"""Write the custom resource definitions to this folder and to the chart.

python crds/generate.py           write the files
python crds/generate.py --check   only compare; the exit code is 1 if a file differs
"""

import argparse
import sys
from pathlib import Path

import yaml

from finetune_api.crd import finetune_crd, model_crd
from finetune_api.wire import JsonObject

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT / "crds", ROOT / "charts" / "finetune-operator" / "files" / "crds")
HEADER = "# Generated from api/finetune_api by `make generate`. Change the models, not this file.\n"


def rendered() -> dict[str, str]:
    """Map each file name to its content."""
    return {"finetunes.yaml": _yaml(finetune_crd()), "models.yaml": _yaml(model_crd())}


def _yaml(crd: JsonObject) -> str:
    return HEADER + yaml.safe_dump(crd, sort_keys=False, width=100)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write or check the generated CRDs.")
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    stale = []
    for folder in FOLDERS:
        for name, text in rendered().items():
            path = folder / name
            if path.exists() and path.read_text() == text:
                continue
            stale.append(path.relative_to(ROOT))
            if not check:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    for path in stale:
        print(f"{'differs from the models, run `make generate`' if check else 'written'}: {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
