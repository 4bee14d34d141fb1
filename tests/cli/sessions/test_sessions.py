"""Screens with 80 columns, recorded with tmux and compared with golden files.

`--update-golden` records them again. Read them before you commit them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import RunLayout
from finetune_storage.s3 import Storage
from tests.cli.chat_model import CHAT, lines, write_chat_model
from tests.cli.sessions.picture import to_svg
from tests.cli.sessions.terminal import PROGRAM, WIDTH, Terminal, terminal
from tests.cli.statuses import resolved, status
from tests.support.kubectl import Kubectl, finetune

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no tmux on this machine"),
]

MODEL = "ada:ft-team:tone-2026-11-21-12-00-00"
GOLDEN = Path(__file__).parent / "golden"
PICTURE = Path(__file__).parents[3] / "docs/img/tokenize-chat.svg"
MASKS = (
    (r"team-\d+", "team-N"),
    (r"bucket-\d+", "bucket-N"),
    (r"https?://127\.0\.0\.1:\d+", "http://127.0.0.1:PORT"),
    (r"v1\.\d+\.\d+\S*", "v1.N"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "YYYY-MM-DD HH:MM:SS"),
    (r"-[0-9a-f]{8}\b", "-UID"),
    (r"\b\d{1,3}s\b *", "AGEs "),
)


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Any:
    """A screen against its golden file; no line is wider than the terminal."""

    def check(name: str, screen: str) -> None:
        assert max(map(len, screen.splitlines())) <= WIDTH
        for pattern, mask in MASKS:
            screen = re.sub(pattern, mask, screen, flags=re.MULTILINE)
        text = "\n".join(line.rstrip() for line in screen.splitlines()) + "\n"
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.write_text(text)
        assert text == path.read_text()

    return check


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Terminal]:
    """Without a cluster."""
    with terminal(tmp_path, {}) as made:
        yield made


def test_a_screen_is_cleared_between_two_commands(alone: Terminal) -> None:
    alone.run("for n in $(seq 100); do echo line $n; done")
    alone.clear()
    assert alone.run("echo done") == "$ echo done\ndone"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("help", "--help"),
        ("create-help", "create --help"),
        ("complete-help", "complete --help"),
        ("run-help", "run --help"),
        ("models-help", "models --help"),
        ("wrong-command", "cancle tone"),
    ],
)
def test_help(alone: Terminal, compare: Any, name: str, words: str) -> None:
    compare(name, alone.run(f"finetune {words}"))


TICKETS = "Prompt,completion,ticket\n" + "".join(
    f"I {word} your product number {n},{label},{n}\n"
    for n in range(20)
    for word, label in (("love", "positive"), ("hate", "negative"))
)


def test_prepare_data_asks_and_writes(alone: Terminal, compare: Any, tmp_path: Path) -> None:
    (tmp_path / "support.csv").write_text(TICKETS + "I love your product number 1,positive,99\n")
    alone.type("finetune prepare-data support.csv")
    for question in ("Remove the copy", "Split off a validation file"):
        alone.wait(question)
        alone.press("Enter")
    alone.wait(r"^\$$")
    compare("prepare-data", alone.screen.removesuffix("\n$"))
    written = [path.read_text() for path in sorted(tmp_path.glob("support_prepared_*.jsonl"))]
    assert [text.count("\n") for text in written] == [32, 8]


def test_tokenize_shows_what_is_learned_of_a_chat(
    tmp_path: Path, compare: Any, request: pytest.FixtureRequest
) -> None:
    """The screen, and the picture of it in the documentation, as they are today."""
    write_chat_model(tmp_path / "base-model")
    (tmp_path / "chats.jsonl").write_text(lines(CHAT))
    colors = {"TERM": "screen-256color", "COLORTERM": "", "NO_COLOR": ""}
    with terminal(tmp_path, colors) as made:
        screen = made.run("finetune tokenize -m base-model -f chats.jsonl")
        colored = made.colored_screen.rpartition("\n")[0]
    compare("tokenize-chat", screen)
    picture = to_svg(colored, "finetune tokenize")
    if request.config.getoption("--update-golden"):
        PICTURE.write_text(picture)
    assert picture == PICTURE.read_text()


@pytest.fixture
def at_cluster(
    tmp_path: Path, team: Kubectl, aws: pytest.MonkeyPatch, bucket: str
) -> Iterator[Terminal]:
    """With a real API server and a real S3 server; the context names the namespace."""
    config = json.loads(team("config", "view", "--raw", "-o", "json"))
    for context in config["contexts"]:
        context["context"]["namespace"] = team.namespace
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    s3 = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    kubeconfig = {"KUBECONFIG": str(tmp_path / "kubeconfig")}
    with terminal(tmp_path, {**s3, **kubeconfig, "FINETUNE_UPLOAD_TO": f"s3://{bucket}/d"}) as made:
        yield made


@pytest.mark.integration
def test_create_and_follow(
    at_cluster: Terminal, team: Kubectl, compare: Any, tmp_path: Path
) -> None:
    """The test plays the operator."""
    rows = [json.dumps({"prompt": f"{n} ->", "completion": " a"}) for n in range(200)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    at_cluster.type('finetune create tone -t train.jsonl -m curie --suffix "support tone"')
    at_cluster.wait("waiting for the operator")
    story = ["Created fine-tune: tone", "Fine-tune started"]
    eta = (datetime.now(UTC) + timedelta(minutes=90, seconds=25)).isoformat()
    progress = {"step": 300, "steps": 1000, "loss": 1.7, "tokensPerSecond": 12345.6, "eta": eta}
    running = status("running", *story, stage="training", progress=progress)
    team.patch_status("finetune", "tone", running)
    at_cluster.wait("step 300/1,000")
    compare("follow-live", at_cluster.screen)
    story += ["Completed epoch 4/4 (training loss 1.2044, validation loss 1.3010)"]
    story += ["Uploaded model: curie:ft-team:support-tone-2026-11-21-14-05-10"]
    ended = status(
        "succeeded",
        *story,
        "Fine-tune succeeded",
        fineTunedModel="curie:ft-team:support-tone-2026-11-21-14-05-10",
        modelUri="s3://acme/finetunes/team/tone-0a1b2c3d/model",
    )
    team.patch_status("finetune", "tone", ended)
    at_cluster.wait(r"\n\$$")
    compare("follow-succeeded", at_cluster.screen.removesuffix("\n$"))


@pytest.mark.integration
def test_follow_of_one_that_fails_and_ctrl_c(
    at_cluster: Terminal, team: Kubectl, compare: Any
) -> None:
    team.apply(finetune("tone"))
    team.patch_status("finetune", "tone", status("running", "Fine-tune started", stage="training"))
    at_cluster.type("finetune follow tone")
    at_cluster.wait("Fine-tune started")
    at_cluster.wait("training")
    at_cluster.press("C-c")
    at_cluster.wait(r"^\$$")
    compare("follow-ctrl-c", at_cluster.screen.removesuffix("\n$"))
    error = {
        "code": "InvalidData",
        "message": 'trainingFile s3://acme/train.jsonl, line 17: "completion" is empty (3 wrong '
        "lines of 1,200; see data-report.jsonl)",
        "param": "trainingFile",
        "lines": [
            'line 17: "completion" is empty',
            'line 90: "completion" is empty',
            'line 91: "completion" is empty',
        ],
        "hint": "run `finetune prepare-data` on the file to see all invalid lines and to remove "
        "them",
    }
    team.patch_status("finetune", "tone", status("failed", "Fine-tune started", error=error))
    at_cluster.clear()
    compare("follow-failed", at_cluster.run("finetune follow tone"))


def learned(steps: int) -> str:
    """A results.csv whose curves look like a training's, without chance."""
    lines = ["step,elapsed_tokens,training_loss,training_token_accuracy,validation_loss"]
    for step in range(1, steps + 1):
        loss = 0.6 + 3.4 * 0.97**step + 0.1 * ((step * 7919) % 13 - 6) / 6
        checked = f"{loss + 0.25:.4f}" if step % 8 == 0 else ""
        lines.append(f"{step},{step * 512},{loss:.4f},{1 - 0.9 * 0.98**step:.4f},{checked}")
    return "\n".join(lines) + "\n"


@pytest.mark.integration
def test_results_as_a_plot_lists_and_models(
    at_cluster: Terminal, team: Kubectl, compare: Any, storage: Storage, bucket: str
) -> None:
    team.apply(finetune("tone", model="ada"), finetune("waiting", model=MODEL))
    state = status("succeeded", fineTunedModel=MODEL)
    team.patch_status("finetune", "tone", {**state, "resolved": resolved(bucket)})
    uid = team.get("finetune", "tone")["metadata"]["uid"]
    layout = RunLayout.of(f"s3://{bucket}/out", team.namespace, "tone", uid)
    storage.write_bytes(layout.results, learned(120).encode())
    compare("results-plot", at_cluster.run("finetune results tone --plot"))

    def fresh(name: str, command: str) -> None:
        at_cluster.clear()
        compare(name, at_cluster.run(command))

    fresh("list", "finetune list")
    team.apply(
        {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": "ada-ft-team-tone-2026-11-21-12-00-00"},
            "spec": {
                "id": MODEL,
                "uri": f"s3://{bucket}/out/team/tone-0a1b2c3d/model",
                "base": "ada",
                "pretrainingLearningRate": 0.001,
                "contextLength": 256,
                "trainedTokens": 142928,
                "parent": "ada:ft-team:2026-11-20-12-00-00",
                "metrics": {"trainingLoss": 1.0217, "validationTokenAccuracy": 0.848},
                "metricsBefore": {"validationTokenAccuracy": 0.71},
            },
        }
    )
    fresh("models-list", "finetune models list")
    fresh("models-get", f"finetune models get {MODEL}")


@pytest.mark.integration
def test_doctor_of_a_cluster_without_an_operator(at_cluster: Terminal, compare: Any) -> None:
    compare("doctor", at_cluster.run("finetune doctor"))
