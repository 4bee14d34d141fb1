"""OpenAI's clients against `finetune serve`: from the upload to completions with a real model."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from collections.abc import Iterator

import openai
import pytest
from openai.types import Completion

from tests.integration.clients.installations import Clients
from tests.local.serving import Server
from tests.support.tiny_model import make_word_model

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VERSION = "0.28.1"


PROMPT = "the fox 1 ->"
NODE = """
const old = require("openai-3"), six = require("openai-6"), seven = require("openai-7");
const basePath = process.env.OPENAI_BASE_URL, apiKey = process.env.OPENAI_API_KEY;
const body = {model: MODEL, prompt: PROMPT, max_tokens: 3, temperature: 0, logprobs: 2};
(async () => {
  const api = new old.OpenAIApi(new old.Configuration({basePath, apiKey}));
  const first = (await api.createCompletion(body)).data;
  const whole = [], streamed = [];
  for (const OpenAI of [six, seven]) {
    const client = new OpenAI();
    whole.push(await client.completions.create(body));
    let text = "";
    const stream = await client.completions.create({...body, stream: true});
    for await (const part of stream) text += part.choices[0].text;
    streamed.push(text);
  }
  let error = null;
  try { await api.createCompletion({...body, best_of: 0}); }
  catch (caught) { error = caught.response.data.error; }
  console.log(JSON.stringify({first, whole, streamed, error}));
})().catch(error => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("machine")
    found = Server(folder, make_word_model(folder / "base"))
    found.start()
    yield found
    found.close()


@pytest.fixture(scope="module")
def model(server: Server) -> str:
    """A model that the server has trained."""
    job = server.await_status(server.create(epochs=2), "succeeded", "failed")
    assert job.fine_tuned_model, job.error
    return str(job.fine_tuned_model)


def test_the_commands_of_openai_work_without_a_cluster(server: Server, clients: Clients) -> None:
    url, key = server.variables["OPENAI_API_BASE"], server.variables["OPENAI_API_KEY"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return clients.openai(VERSION, url, key, "api", *arguments, cwd=server.folder, seconds=240)

    def succeed(*arguments: str) -> str:
        done = run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}{server.messages}"
        return done.stdout

    created = succeed(
        *("fine_tunes.create", "-t", "train.jsonl", "-m", "ada"),
        *("--suffix", "custom model name", "--n_epochs", "2"),
    )
    assert "Job complete! Status: succeeded" in created
    job = re.search(r"Created fine-tune: (ft-\S+)", created)
    file = re.search(r"Uploaded file from train\.jsonl: (\S+)", created)
    model = re.search(r"completions\.create -m (\S+)", created)
    assert job and file and model
    assert model[1].startswith("ada:ft-local:custom-model-name-20")
    assert job[1] in succeed("fine_tunes.list")
    assert '"status": "succeeded"' in succeed("fine_tunes.get", "-i", job[1])
    followed = succeed("fine_tunes.follow", "-i", job[1])
    assert followed.count("Completed epoch 2/2") == 1
    rows = [*csv.DictReader(io.StringIO(succeed("fine_tunes.results", "-i", job[1])))]
    assert [int(row["step"]) for row in rows] == [*range(1, len(rows) + 1)]
    again = succeed("fine_tunes.create", "-t", file[1], "-m", model[1], "--no_follow")
    second = re.search(r'"id": "(ft-[^"]+)"', again)  # it continues from the model
    assert second
    assert '"status": "cancelled"' in succeed("fine_tunes.cancel", "-i", second[1])
    asked = ("completions.create", "-m", model[1], "-p", PROMPT, "-M", "3", "-t", "0")
    completed = succeed(*asked)
    assert completed.startswith(PROMPT)
    streamed = succeed(*asked, "--stream")
    assert streamed.rstrip("\n") == completed.rstrip("\n")
    assert model[1] in succeed("models.list")
    assert '"deleted": true' in succeed("models.delete", "-i", model[1])
    server.until(lambda: "does not exist" in run("models.get", "-i", model[1]).stderr)
    name = job[1].removeprefix("ft-")
    assert not [*server.folder.glob(f"out/local/{name}-*/model/manifest.json")]
    assert [*server.folder.glob(f"out/local/{name}-*/results.csv")]
    missing = run("fine_tunes.create", "-t", "nosuch.jsonl", "-m", "ada")
    assert missing.returncode == 1
    assert "nosuch.jsonl" in missing.stdout + missing.stderr


def test_every_client_gets_the_same_completion(
    server: Server, clients: Clients, model: str
) -> None:
    url, key = server.variables["OPENAI_API_BASE"], server.variables["OPENAI_API_KEY"]
    newest = server.client.completions.create(
        model=model, prompt=PROMPT, max_tokens=3, temperature=0, logprobs=2
    )
    Completion.model_validate(json.loads(newest.to_json()), strict=True)
    text = newest.choices[0].text
    for version in ("0.28.1", "1.109.1"):
        asked = ("api", "completions.create", "-m", model, "-p", PROMPT, "-M", "3", "-t", "0")
        for option in ((), ("--stream",)):
            done = clients.openai(version, url, key, *asked, *option, cwd=server.folder)
            assert done.returncode == 0, done.stdout + done.stderr
            shown = done.stdout.removeprefix(PROMPT)  # 0.28.1 asks for an echo
            assert shown.strip() == text.strip(), version
    script = NODE.replace("MODEL", json.dumps(model)).replace("PROMPT", json.dumps(PROMPT))
    done = clients.node(script, url, key)
    assert done.returncode == 0, done.stdout + done.stderr
    shown_by_node = json.loads(done.stdout)
    whole = [shown_by_node["first"], *shown_by_node["whole"]]
    assert {item["choices"][0]["text"] for item in whole} == {text}
    assert shown_by_node["streamed"] == [text, text]
    assert whole[0]["choices"][0]["logprobs"] == newest.choices[0].logprobs.to_dict()
    assert shown_by_node["error"]["param"] == "best_of"


def test_a_chat_with_a_model_that_was_trained_on_prompts_says_what_to_use(
    server: Server, model: str
) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/completions"):
        server.client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}]
        )


def test_the_old_library_reads_a_model_that_loads_without_a_loop(
    server: Server, clients: Clients, model: str
) -> None:
    """One request is enough: the server holds it until the model is loaded."""
    program = (
        "import json, openai, sys\n"
        f"answer = openai.Completion.create(model={model!r}, prompt={PROMPT!r}, max_tokens=2, "
        "echo=True, logprobs=1)\n"
        "print(json.dumps(answer))\n"
    )
    done = clients.start(
        [str(clients.python(VERSION)), "-c", program],
        {
            "OPENAI_API_BASE": server.variables["OPENAI_API_BASE"],
            "OPENAI_API_KEY": server.variables["OPENAI_API_KEY"],
        },
        cwd=server.folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    choice = json.loads(done.stdout)["choices"][0]
    assert choice["text"].startswith(PROMPT)
    assert choice["logprobs"]["token_logprobs"][0] is None


def test_the_logger_of_weights_and_biases_reads_our_results(
    server: Server, clients: Clients, model: str
) -> None:
    """`openai wandb sync` itself refuses to start without a login, which needs the internet."""
    (job,) = (it for it in server.client.fine_tuning.jobs.list() if it.fine_tuned_model == model)
    results = server.client.files.content(job.result_files[0]).text
    last = [*csv.DictReader(io.StringIO(results))][-1]
    program = (
        "from openai.wandb_logger import WandbLogger\n"
        "WandbLogger._logged_in = True\n"
        f"print(WandbLogger.sync(id={job.id!r}))\n"
    )
    done = clients.start(
        [str(clients.python("0.28.1-wandb")), "-c", program],
        {
            "OPENAI_API_BASE": server.variables["OPENAI_API_BASE"],
            "OPENAI_API_KEY": server.variables["OPENAI_API_KEY"],
            "WANDB_MODE": "offline",
            "WANDB_API_KEY": "0" * 40,
        },
        cwd=server.folder,
        seconds=240,
    )
    told = done.stdout + done.stderr
    assert "wandb sync completed successfully" in told, told
    *_, loss = re.findall(r" training_loss ([0-9.]+)$", told, re.MULTILINE)
    assert float(loss) == pytest.approx(float(last["training_loss"]), rel=1e-4)
    assert [*(server.folder / "wandb").glob(f"offline-run-*-{job.id}")]
