"""The user's settings: a small YAML file that persists between commands."""

from __future__ import annotations

import os
from pathlib import Path

import click

from finetune_cli.terminal.errors import CommandError

UPLOAD_TO = "uploadTo"  # s3://bucket/prefix for local files
UPLOAD_TO_VARIABLE = "FINETUNE_UPLOAD_TO"


def settings_file() -> Path:
    """`~/.config/finetune/config.yaml`, or the platform's equivalent."""
    return Path(click.get_app_dir("finetune")) / "config.yaml"


def upload_prefix() -> str | None:
    """The destination of local files, from the environment or the saved setting."""
    return os.environ.get(UPLOAD_TO_VARIABLE) or _read().get(UPLOAD_TO)


def save_upload_prefix(prefix: str) -> bool:
    """Save the prefix; returns whether it changed. Other settings in the file are kept."""
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
        raise CommandError(f"{path} is not valid YAML", "correct or remove the file") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(it, str) for it in found.values()):
        raise CommandError(
            f"{path} must contain names and text values, such as `uploadTo: s3://bucket/prefix`",
            "correct or remove the file",
        )
    return found
