"""A model of each family learns its chats by heart, says them on any server, and stops."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_storage.s3 import Storage
from tests.trainer import support

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("weight", ["0", "0.1"])
def test_models_say_what_they_learned_and_stop(
    storage: Storage, tmp_path: Path, weight: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.trainer.memorizing", str(tmp_path), weight],
        env=support.pod_environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stderr[-3000:]
    wrong = []
    for line in ran.stdout.splitlines():
        made = json.loads(line)
        for kind in ("generated", "completed"):
            for answer in made[kind]:
                said = all(part in answer["text"] for part in answer["expected"] if part)
                if not (said and answer["stopped"]):
                    wrong.append((made["family"], kind, answer))
    assert not wrong
