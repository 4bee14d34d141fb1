"""The settings file of a process: YAML that the chart writes."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from finetune_api.wire import Wire

UNKNOWN = "the field is unknown: correct its name, or remove it"

SettingsT = TypeVar("SettingsT", bound=Wire)


def load_settings(path: Path, kind: type[SettingsT]) -> SettingsT:
    """Load the settings. Raise ValueError with the file and the invalid key."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"settings file {path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = UNKNOWN if first["type"] == "extra_forbidden" else first["msg"]
        problem = problem.removeprefix("Value error, ")
        raise ValueError(f"settings file {path}, {where}: {problem}") from error
