"""`finetune serve` with real trainings: what survives, and who is refused.

A whole life, from the upload to the deleted model, is in tests/integration/clients.
"""

from __future__ import annotations

import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.serving import Server
from tests.support.cases import LONG, every_nth

pytestmark = pytest.mark.slow

EPOCHS = 10  # epochs of a training that is interrupted
MOST = 50  # epochs of a training that a test ends


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Server]:
    """A server that several tests share."""
    found = Server(tmp_path_factory.mktemp("running"), base)
    found.start()
    yield found
    found.close()


def test_data_with_an_error_fails_while_another_job_trains(running: Server) -> None:
    server = running
    long = server.create(epochs=MOST)
    server.await_status(long, "running")
    wrong = server.upload('{"prompt": "no completion"}\n' * 12)
    failed = server.await_status(server.create(training_file=wrong), "failed")
    assert "completion" in failed.error.message
    assert failed.error.param == "training_file"
    waits = server.create()
    server.until(lambda: "another fine-tune uses this machine" in message(server, waits))
    assert server.client.fine_tuning.jobs.cancel(long).status == "cancelled"
    assert server.await_status(waits, "succeeded", "failed").status == "succeeded"


def message(server: Server, job: str) -> str:
    path = server.folder / "out" / ".finetune" / "finetunes" / f"{job.removeprefix('ftjob-')}.json"
    return path.read_text()


@pytest.mark.parametrize("number", every_nth([signal.SIGKILL, signal.SIGINT], 2))
def test_a_training_continues_after_the_server_has_ended(server: Server, number: int) -> None:
    server.start()
    job = server.create(epochs=EPOCHS)
    server.until(lambda: any("Completed epoch 3/" in it for it in server.events(job)))
    assert server.stop(number) == (0 if number == signal.SIGINT else -number)
    server.start()
    done = server.await_status(job, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    found = server.events(job)
    epochs = [it for it in found if it.startswith("Completed epoch ")]
    assert len(epochs) == len({it.split()[2] for it in epochs}), "an epoch is told twice"
    (restart,) = (it for it in found if it.startswith("Fine-tune restarted"))
    assert "from step 0" not in restart
    assert "finetune serve" in restart


@LONG
def test_a_paused_job_continues_from_its_checkpoint(running: Server) -> None:
    server = running
    job = server.create(epochs=EPOCHS)
    server.until(lambda: any("Completed epoch 2/" in it for it in server.events(job)))
    server.client.fine_tuning.jobs.pause(job)
    assert server.client.fine_tuning.jobs.retrieve(job).status == "paused"
    server.until(lambda: "Fine-tune suspended" in server.events(job))
    server.client.fine_tuning.jobs.resume(job)
    assert server.await_status(job, "succeeded", "failed").status == "succeeded"
    assert "Fine-tune resumed" in server.events(job)


def test_a_deleted_job_ends_its_processes(running: Server) -> None:
    server = running
    job = server.create(epochs=MOST)
    server.await_status(job, "running")
    name = job.removeprefix("ftjob-")
    assert processes(server.folder)
    request = urllib.request.Request(
        f"{server.variables['OPENAI_BASE_URL']}/fine-tunes/ft-{name}",
        headers={"Authorization": f"Bearer {server.variables['OPENAI_API_KEY']}"},
        method="DELETE",
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 200
    server.until(lambda: not processes(server.folder))


def processes(folder: Path) -> list[str]:
    """The trainings whose files are in the folder."""
    found = subprocess.run(
        ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in found.splitlines() if str(folder) in line and "trainer" in line]


def test_web_pages_and_other_names_are_refused(running: Server) -> None:
    server = running
    url, key = server.variables["OPENAI_BASE_URL"], server.variables["OPENAI_API_KEY"]
    port = url.split(":")[2].split("/")[0]

    def status(**headers: str) -> int:
        sent = {"Authorization": f"Bearer {key}"} | headers
        request = urllib.request.Request(f"{url}/models", headers=sent)
        try:
            with urllib.request.urlopen(request) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            assert b'"error"' in error.read()
            return error.code

    assert status() == 200
    assert status(Host=f"localhost:{port}", Origin=f"http://localhost:{port}") == 200
    assert status(Host="evil.example") == 403
    assert status(Origin="https://evil.example") == 403
    assert status(Origin="http://localhost:3000") == 403
    assert status(Origin="null") == 403
    assert status(Authorization="Bearer sk-ft-other") == 401


def test_a_second_server_on_the_folder_or_the_port_says_what_to_do(running: Server) -> None:
    server = running
    second = server.launch("--port", "0")
    assert second.wait(60) == 2
    assert "uses the folder" in server.messages
    port = server.variables["OPENAI_BASE_URL"].split(":")[2].split("/")[0]
    third = server.launch("--port", port, "-o", "elsewhere")
    assert third.wait(60) == 1
    assert "pass another --port" in server.messages


def test_the_base_model_completes_to_compare_with(running: Server, base: Path) -> None:
    asked = {"prompt": "the fox 1 ->", "max_tokens": 4, "temperature": 0, "logprobs": 0}
    found = running.client.completions.create(model="ada", **asked)  # type: ignore[call-overload]
    assert (found.model, found.usage.completion_tokens) == ("ada", 4)
    # as transformers' own loop with the same weights
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    ids = tokenizer(asked["prompt"], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
    assert found.choices[0].text == tokenizer.decode(expected)
