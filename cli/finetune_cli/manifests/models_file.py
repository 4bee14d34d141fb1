"""The --models file: base models of the user, whose files may be in folders of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_api.catalog import CATALOG, CatalogModel
from finetune_api.names import LOCAL_BUCKET
from finetune_cli.manifests.uploads import is_local
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE

MODELS = "models"  # the folder in the output folder with links to local base models


def known_models(path: Path | None, root: Path) -> dict[str, CatalogModel]:
    """The base models by name: the catalog, and those of the --models file, if there is one."""
    own = read_models(path, root) if path is not None else []
    return {model.name: model for model in (*CATALOG, *own)}


def read_models(path: Path, root: Path) -> list[CatalogModel]:
    """Read a YAML list, or a map with `models`; a uri may be a folder on this machine."""
    from finetune_cli.manifests.manifest import parse

    try:
        (found,) = parse(path.read_text(encoding="utf-8"), str(path)) or [None]
        entries = found["models"] if isinstance(found, dict) else found
        return [CatalogModel.model_validate(_with_address(e, path, root)) for e in entries]
    except OSError as error:
        raise _wrong(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _wrong(f"{path}: {where}: {first['msg']}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong(f"{path} is not a list of models") from error


def _with_address(entry: Any, path: Path, root: Path) -> Any:
    """Link a local folder into the output folder, which is the local bucket."""
    uri = entry.get("uri") if isinstance(entry, dict) else None
    if not is_local(uri):
        return entry
    folder = (path.parent / Path(str(uri)).expanduser()).resolve()
    if not (folder / "config.json").is_file():
        raise _wrong(f"{path}: {folder} contains no model: config.json is missing")
    link = root / MODELS / str(entry.get("name"))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder, target_is_directory=True)
    return {**entry, "uri": f"s3://{LOCAL_BUCKET}/{MODELS}/{link.name}"}


def _wrong(message: str) -> CommandError:
    return CommandError(message, code=EXIT_USAGE)
