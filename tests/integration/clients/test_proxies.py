"""The gateway behind nginx and Envoy: escaped slashes, streams, and large uploads."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.integration.clients.conftest import OWNER, Gateway
from tests.integration.clients.installations import Clients
from tests.integration.clients.player import Player
from tests.integration.clients.proxies import proxied
from tests.support.kubectl import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROW = b'{"prompt": "How are you? ->", "completion": " Fine.\\n"}\n'
LARGE = 20 * 2**20  # above the limits of usual proxies


@pytest.fixture(scope="module", params=["nginx", "envoy"])
def url(
    request: pytest.FixtureRequest, installed: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    with proxied(request.param, installed.port, folder) as found:
        yield found


def test_the_old_client_uploads_a_file_of_a_folder(
    gateway: Gateway, clients: Clients, url: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_bytes(ROW * 8)
    asked = ("api", "fine_tunes.create", "-t", "data/train.jsonl", "-m", "ada", "--no_follow")
    done = clients.openai("0.28.1", url, gateway.keys[OWNER], *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Uploaded file from data/train.jsonl: file-" in done.stdout


def test_an_escaped_slash_is_part_of_an_id(gateway: Gateway, url: str) -> None:
    headers = {"Authorization": f"Bearer {gateway.keys[OWNER]}"}
    request = urllib.request.Request(f"{url}/files/data%2Ftrain.jsonl", headers=headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    error = json.loads(caught.value.read())["error"]
    assert caught.value.code == 404
    assert "data/train.jsonl" in error["message"]
    assert error["code"] != "unknown_url"


def test_each_event_passes_before_the_next_one_is_written(
    gateway: Gateway, player: Player, url: str
) -> None:
    client = openai.OpenAI(base_url=gateway.url, api_key=gateway.keys[OWNER])
    job = client.fine_tuning.jobs.create(model="ada", training_file="s3://acme/train.jsonl")
    name = job.id.removeprefix("ftjob-")
    lines: list[bytes] = []

    def follow() -> None:
        request = urllib.request.Request(
            f"{url}/fine-tunes/ft-{name}/events?stream=true",
            headers={"Authorization": f"Bearer {gateway.keys[OWNER]}"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            for line in response:
                if line.startswith(b"data: "):
                    lines.append(line)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    for step, text in (
        (player.accept, b"Created"),
        (player.start, b"Fine-tune started"),
        (player.epoch, b"Completed epoch"),
    ):
        step(name)
        until(lambda text=text: any(text in line for line in lines), 20, gateway.logs)
    assert thread.is_alive(), "the stream has ended before its fine-tune"
    player.publish(name)
    thread.join(30)
    assert lines[-1].strip() == b"data: [DONE]"


def test_a_large_file_passes_in_both_directions(gateway: Gateway, url: str) -> None:
    client = openai.OpenAI(base_url=url, api_key=gateway.keys[OWNER], max_retries=0)
    data = ROW * (LARGE // len(ROW))
    file = client.files.create(file=("large.jsonl", data), purpose="fine-tune")
    assert file.bytes == len(data)
    assert client.files.content(file.id).read() == data
    client.files.delete(file.id)
