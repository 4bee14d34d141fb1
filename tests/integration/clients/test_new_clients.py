"""Newer clients: Python (library, and the commands of 1.109.1), Node.js, and curl."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from pathlib import Path

import openai
import pytest
from openai.types import FileObject, Model, ModelDeleted
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from tests.integration.clients.conftest import OWNER, USER, Gateway
from tests.integration.clients.installations import Clients
from tests.integration.clients.player import EPOCH, RESULTS, Player
from tests.support.kubectl import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = b'{"prompt": "How are you? ->", "completion": " Fine.\\n"}\n' * 8
COMMANDS = "1.109.1"


def client(gateway: Gateway, account: str = OWNER) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key=gateway.keys[account], max_retries=2)


def strictly(kind: type[openai.BaseModel], value: openai.BaseModel) -> None:
    """Check the answer against the client's types. Its own parser accepts anything."""
    kind.model_validate(json.loads(value.to_json()), strict=True)


def test_the_newest_client_from_the_upload_to_the_deleted_model(
    gateway: Gateway, player: Player
) -> None:
    asked = client(gateway)
    file = asked.files.create(file=("train.jsonl", ROWS), purpose="fine-tune")
    strictly(FileObject, file)
    assert asked.files.content(file.id).read() == ROWS
    assert asked.files.wait_for_processing(file.id).status == "processed"
    job = asked.fine_tuning.jobs.create(
        model="ada",
        training_file=file.id,
        suffix="custom model name",
        seed=7,
        metadata={"team": "a"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    )
    strictly(FineTuningJob, job)
    assert job.training_file == file.id
    name = job.id.removeprefix("ftjob-")
    with pytest.raises(openai.BadRequestError, match=job.id):
        asked.files.delete(file.id)
    player.accept(name)
    assert asked.fine_tuning.jobs.retrieve(job.id).status == "validating_files"
    player.start(name)
    player.epoch(name)
    model = player.publish(name)
    ended = asked.fine_tuning.jobs.retrieve(job.id)
    strictly(FineTuningJob, ended)
    assert (ended.status, ended.fine_tuned_model) == ("succeeded", model)
    assert asked.files.content(ended.result_files[0]).read() == RESULTS
    events = list(asked.fine_tuning.jobs.list_events(job.id, limit=2))
    for event in events:
        strictly(FineTuningJobEvent, event)
    told = [event.message for event in events if event.type == "message"]
    assert told[0] == "Fine-tune succeeded"
    assert told.count(EPOCH) == 1
    assert len([event for event in events if event.type == "metrics"]) == 2
    assert len({event.id for event in events}) == len(events)
    assert [item.id for item in asked.fine_tuning.jobs.list(metadata={"team": "a"})] == [job.id]
    assert list(asked.fine_tuning.jobs.list(metadata={"team": "b"})) == []
    assert list(asked.fine_tuning.jobs.checkpoints.list(job.id)) == []
    strictly(Model, asked.models.retrieve(model))
    with pytest.raises(openai.PermissionDeniedError, match="finetune-owner"):
        client(gateway, USER).models.delete(model)
    strictly(ModelDeleted, asked.models.delete(model))
    with pytest.raises(openai.NotFoundError):
        asked.models.retrieve(model)
    assert asked.files.delete(file.id).deleted


def test_pause_resume_and_cancel(gateway: Gateway) -> None:
    asked = client(gateway, USER)
    job = asked.fine_tuning.jobs.create(model="ada", training_file="s3://acme/train.jsonl")
    assert asked.fine_tuning.jobs.pause(job.id).status == "paused"
    name = job.id.removeprefix("ftjob-")
    assert gateway.team.get("finetune", name)["spec"]["suspend"] is True
    assert asked.fine_tuning.jobs.resume(job.id).status == "queued"
    with pytest.raises(openai.BadRequestError, match="not paused"):
        asked.fine_tuning.jobs.resume(job.id)
    asked.fine_tuning.jobs.cancel(job.id)
    assert gateway.team.get("finetune", name)["spec"]["cancel"] is True


def test_pages_of_jobs(gateway: Gateway) -> None:
    asked = client(gateway)
    made = [
        asked.fine_tuning.jobs.create(model="ada", training_file="s3://acme/train.jsonl").id
        for _ in range(5)
    ]
    seen = [job.id for job in asked.fine_tuning.jobs.list(limit=2)]
    assert sorted(seen) == sorted(made)


def test_a_repeated_request_creates_one_finetune(gateway: Gateway) -> None:
    asked = client(gateway)
    headers = {"x-stainless-retry-count": "1"}
    first, second = (
        asked.fine_tuning.jobs.create(
            model="ada", training_file="s3://acme/train.jsonl", extra_headers=headers
        )
        for _ in range(2)
    )
    assert first.id == second.id
    assert len(gateway.team.list("finetunes")) == 1


def test_a_quota_is_an_error_that_clients_do_not_repeat(gateway: Gateway) -> None:
    count = "count/finetunes.finetune.dev"
    gateway.team("create", "quota", "few", f"--hard={count}=1")
    # the quota controller writes it, which does not run here; the API server counts
    status = {"hard": {count: "1"}, "used": {count: "0"}}
    gateway.team.patch_status("resourcequota", "few", status)
    asked = client(gateway)
    asked.fine_tuning.jobs.create(model="ada", training_file="s3://acme/train.jsonl")
    with pytest.raises(openai.RateLimitError, match="quota") as caught:
        asked.fine_tuning.jobs.create(model="ada", training_file="s3://acme/train.jsonl")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.code == "insufficient_quota"


def test_another_team_sees_nothing(gateway: Gateway) -> None:
    """An account of another namespace may list its own FineTunes, and none of this one."""
    other = gateway.team.within("default")
    other("create", "serviceaccount", "eve")
    stranger = other("create", "token", "eve").strip()
    gateway.keys["stranger"] = stranger
    asked = client(gateway, "stranger")
    with pytest.raises(openai.PermissionDeniedError):
        list(asked.fine_tuning.jobs.list())
    with pytest.raises(openai.PermissionDeniedError):
        list(asked.files.list())
    with pytest.raises(openai.PermissionDeniedError):
        asked.files.create(file=("train.jsonl", ROWS), purpose="fine-tune")


def test_the_commands_of_the_last_version_that_has_them(
    clients: Clients, gateway: Gateway, player: Player, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_bytes(ROWS)

    def run(*arguments: str) -> str:
        done = clients.openai(
            COMMANDS, gateway.url, gateway.keys[OWNER], "api", *arguments, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    file = json.loads(run("files.create", "-f", "train.jsonl", "-p", "fine-tune"))
    assert file["id"] in run(
        "files.list"
    )  # its other commands of files expect the flags of a creation
    job = json.loads(run("fine_tuning.jobs.create", "-m", "ada", "-F", file["id"], "-s", "tone"))
    player.whole_life(job["id"].removeprefix("ftjob-"))
    shown = json.loads(run("fine_tuning.jobs.retrieve", "-i", job["id"]))
    assert shown["status"] == "succeeded"
    assert job["id"] in run("fine_tuning.jobs.list")
    assert EPOCH in run("fine_tuning.jobs.list_events", "-i", job["id"])
    assert shown["fine_tuned_model"] in run("models.list")
    assert "true" in run("models.delete", "-i", shown["fine_tuned_model"])


OLD_NODE = """
const {Configuration, OpenAIApi} = require("openai-3");
const fs = require("fs");
const api = new OpenAIApi(new Configuration(
  {apiKey: process.env.OPENAI_API_KEY, basePath: process.env.OPENAI_BASE_URL}));
(async () => {
  fs.writeFileSync("train.jsonl", '{"prompt": "a", "completion": "b"}\\n');
  const file = await api.createFile(fs.createReadStream("train.jsonl"), "fine-tune");
  const tune = await api.createFineTune(
    {training_file: file.data.id, model: "ada", suffix: "custom model name"});
  const events = await api.listFineTuneEvents(tune.data.id, false);
  const cancelled = await api.cancelFineTune(tune.data.id);
  const listed = await api.listFineTunes();
  const shown = await api.retrieveFineTune(tune.data.id);
  const models = await api.listModels();
  let error = null;
  try { await api.createFineTune({training_file: "nosuch", model: "ada"}); }
  catch (caught) { error = caught.response.data.error; }
  console.log(JSON.stringify({file: file.data, tune: tune.data, events: events.data,
    cancelled: cancelled.data, listed: listed.data, shown: shown.data, models: models.data,
    error}));
})().catch(error => { console.error(error.response ? error.response.data : error);
  process.exit(1); });
"""

NEW_NODE = """
const OpenAI = require("openai-VERSION").default;
const {toFile} = require("openai-VERSION");
const client = new OpenAI();
(async () => {
  const bytes = Buffer.from('{"prompt": "a", "completion": "b"}\\n');
  const file = await client.files.create(
    {file: await toFile(bytes, "train.jsonl"), purpose: "fine-tune"});
  const job = await client.fineTuning.jobs.create(
    {model: "ada", training_file: file.id, suffix: "tone", metadata: {team: "node"}});
  const listed = [];
  for await (const item of client.fineTuning.jobs.list({limit: 1})) listed.push(item.id);
  const events = [];
  for await (const item of client.fineTuning.jobs.listEvents(job.id)) events.push(item);
  const shown = await client.fineTuning.jobs.retrieve(job.id);
  const cancelled = await client.fineTuning.jobs.cancel(job.id);
  let error = null;
  try { await client.fineTuning.jobs.create({model: "nosuch", training_file: file.id}); }
  catch (caught) { error = {status: caught.status, code: caught.code, param: caught.param}; }
  console.log(JSON.stringify({file, job, listed, events, shown, cancelled, error}));
})().catch(error => { console.error(error); process.exit(1); });
"""


def test_the_old_client_for_node(clients: Clients, gateway: Gateway) -> None:
    done = clients.node(OLD_NODE, gateway.url, gateway.keys[OWNER])
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert shown["tune"]["id"].startswith("ft-custom-model-name-")
    assert shown["listed"]["data"][0]["id"] == shown["shown"]["id"] == shown["tune"]["id"]
    assert {"ada", "curie"} <= {item["id"] for item in shown["models"]["data"]}
    assert shown["error"]["param"] == "training_file"


@pytest.mark.parametrize("version", ["6", "7"])
def test_the_new_clients_for_node(clients: Clients, gateway: Gateway, version: str) -> None:
    script = NEW_NODE.replace("VERSION", version)
    done = clients.node(script, gateway.url, gateway.keys[OWNER])
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert shown["listed"] == [shown["job"]["id"]]
    assert shown["shown"]["metadata"] == {"team": "node"}
    assert shown["error"] == {"status": 400, "code": "model_not_found", "param": "model"}


def test_curl_with_a_bearer_token(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(ROWS)

    def curl(path: str, *arguments: str) -> str:
        command = ["curl", "-sS", "--noproxy", "*", f"{gateway.url}{path}", *arguments]
        command += ["-H", f"Authorization: Bearer {gateway.keys[OWNER]}"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    file = json.loads(curl("/files", "-F", "file=@train.jsonl", "-F", "purpose=fine-tune"))
    body = json.dumps({"training_file": file["id"], "model": "ada", "suffix": "tone"})
    made = json.loads(curl("/fine-tunes", "-H", "Content-Type: application/json", "-d", body))
    assert re.fullmatch(r"ft-tone-[0-9a-f]{6}", made["id"])
    assert json.loads(curl(f"/fine-tunes/{made['id']}"))["training_files"][0]["id"] == file["id"]
    assert json.loads(curl(f"/files/{file['id']}/content").splitlines()[0])["prompt"]
    assert json.loads(curl("/nosuch"))["error"]["code"] == "unknown_url"


def test_a_stream_over_a_gateway_that_ends_says_so_and_continues_where_it_was(
    gateway: Gateway, player: Player, clients: Clients, tmp_path: Path
) -> None:
    asked = client(gateway)
    job = asked.fine_tuning.jobs.create(model="ada", training_file="s3://acme/train.jsonl")
    name = job.id.removeprefix("ftjob-")
    player.accept(name)
    player.start(name)
    shown: list[subprocess.CompletedProcess[str]] = []

    def follow() -> None:
        shown.append(
            clients.openai(
                "0.28.1", gateway.url, gateway.keys[OWNER], "api", "fine_tunes.follow",
                "-i", f"ft-{name}", cwd=tmp_path,
            )
        )  # fmt: skip

    clients.python("0.28.1")
    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: _open_streams(gateway) == 1, 60, gateway.logs)
    assert gateway.stop() == 0
    thread.join(60)
    assert "Stream interrupted" in shown[0].stdout
    gateway.start()
    player.epoch(name)
    player.publish(name)
    follow()
    told = shown[1].stdout
    for message in ("Fine-tune started", EPOCH, "Fine-tune succeeded"):
        assert told.count(message) == 1, told


def _open_streams(gateway: Gateway) -> float:
    text = gateway.operations("/metrics")
    found = re.search(r"^\w*open_streams\S* (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])
