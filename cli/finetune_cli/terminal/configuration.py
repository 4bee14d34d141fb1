"""The user's own settings: one small YAML file, kept between two calls."""

from __future__ import annotations

import os
from pathlib import Path

import click

from finetune_cli.terminal.errors import CommandError

UPLOAD_TO = "uploadTo"  # s3://bucket/prefix of local files
ENVIRONMENT = "FINETUNE_UPLOAD_TO"


def settings_file() -> Path:
    """`~/.config/finetune/config.yaml`, where the system keeps such files."""
    return Path(click.get_app_dir("finetune")) / "config.yaml"


def upload_prefix() -> str | None:
    """Where local files go: the environment's word, else what was kept."""
    return os.environ.get(ENVIRONMENT) or _read().get(UPLOAD_TO)


def keep_upload_prefix(prefix: str) -> bool:
    """Remember it; returns whether that is news. Other settings in the file stay."""
    settings = _read()
    if settings.get(UPLOAD_TO) == prefix:
        return False
    import yaml

    path = settings_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(yaml.safe_dump({**settings, UPLOAD_TO: prefix}), encoding="utf-8")
    part.replace(path)
    return True


def _read() -> dict[str, str]:
    import yaml

    path = settings_file()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} is not YAML", "correct it, or remove it") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(it, str) for it in found.values()):
        raise CommandError(
            f"{path} must hold names and texts, as in `uploadTo: s3://bucket/prefix`",
            "correct it, or remove it",
        )
    return found
