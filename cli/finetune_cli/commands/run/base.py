"""The base model of a run: the catalog's, one of a file of further ones, or one made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_api.catalog import CATALOG, CatalogModel
from finetune_api.layout import MANIFEST
from finetune_api.names import LOCAL_BUCKET
from finetune_api.outcome import Failure
from finetune_api.tasks import BaseModelRef
from finetune_cli.manifests.uploads import is_local
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE

MODELS = "models"  # the folder below the output that names local base models
OWN_MODELS = (
    "--models FILE names base models of your own: a YAML list of name, uri (a folder of this "
    "machine will do), pretrainingLearningRate and contextLength"
)


def find_base(name: str, models_file: Path | None, root: Path) -> BaseModelRef:
    """Of spec.model. Raises CommandError that lists what there is."""
    known = {model.name: model for model in CATALOG}
    if models_file is not None:
        known |= {model.name: model for model in read_models(models_file, root)}
    if name in known:
        return known[name].reference
    made = _made_here(root)
    if name in made:
        return _continued(made[name], known)
    listed = ", ".join([*known, *sorted(made)])
    why = "spec.model takes a name, no folder; " if "/" in name else ""
    raise CommandError(
        f"model {name!r:.80} is unknown: {why}there are {listed}", OWN_MODELS, code=EXIT_USAGE
    )


def with_own_models(failure: Failure, uri: str) -> Failure:
    """A base model that the hub does not provide: the hint also names the user's own models."""
    if failure.param != "model" or failure.hint is None or not uri.startswith("hf://"):
        return failure
    return failure.replace(hint=f"{failure.hint}; {OWN_MODELS}")


def read_models(path: Path, root: Path) -> list[CatalogModel]:
    """A YAML list, or a map with `models`; an address may be a folder of this machine."""
    from finetune_cli.manifests.manifest import parse

    try:
        (found,) = parse(path.read_text(encoding="utf-8"), str(path)) or [None]
        entries = found["models"] if isinstance(found, dict) else found
        return [CatalogModel.model_validate(_with_address(e, path, root)) for e in entries]
    except OSError as error:
        raise _wrong(f"{path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _wrong(f"{path}: {where}: {first['msg']}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong(f"{path} is no list of models") from error


def _with_address(entry: Any, path: Path, root: Path) -> Any:
    """A folder gets a name below the output, where the local bucket sees it."""
    uri = entry.get("uri") if isinstance(entry, dict) else None
    if not is_local(uri):
        return entry
    folder = (path.parent / Path(str(uri)).expanduser()).resolve()
    if not (folder / "config.json").is_file():
        raise _wrong(f"{path}: {folder} holds no model: there is no config.json")
    place = root / MODELS / str(entry.get("name"))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(folder, target_is_directory=True)
    return {**entry, "uri": f"s3://{LOCAL_BUCKET}/{MODELS}/{place.name}"}


def _made_here(root: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Fine-tuned models below the output, by their names: folder and manifest."""
    import json

    found = {}
    for path in root.glob(f"*/*/model/{MANIFEST}"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found[str(manifest["id"])] = path.parent, manifest
    return found


def _continued(made: tuple[Path, dict[str, Any]], known: dict[str, CatalogModel]) -> BaseModelRef:
    """The model's own base gives what its name does not say."""
    folder, manifest = made
    root = str(manifest["id"]).partition(":")[0]
    base = known.get(root)
    if base is None:
        raise CommandError(
            f"{manifest['id']} was made of {root!r:.80}, which is unknown here",
            "give the --models FILE that it was made with",
            code=EXIT_USAGE,
        )
    key = "/".join(folder.parts[-3:])
    return base.reference.replace(name=manifest["id"], uri=f"s3://{LOCAL_BUCKET}/{key}")


def _wrong(message: str) -> CommandError:
    return CommandError(message, code=EXIT_USAGE)
