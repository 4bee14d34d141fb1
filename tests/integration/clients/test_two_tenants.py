"""Two tenants with a release each, whose gateways share a bucket."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.integration.clients.conftest import OWNER, Gateway
from tests.integration.clients.player import Player
from tests.security.s3 import Tenant
from tests.support.kubectl import Kubectl

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = b'{"prompt": "How are you? ->", "completion": " Fine.\\n"}\n' * 8


@pytest.fixture(scope="module")
def other(
    admin: Kubectl, tools: Path, tmp_path_factory: pytest.TempPathFactory, store: Tenant
) -> Iterator[Gateway]:
    """The gateway of another release, in another namespace, with users of the same names."""
    name = f"other-{secrets.token_hex(3)}"
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    made = Gateway(admin.within(name), tools / "helm", tmp_path_factory.mktemp("other"), store)
    made.start()
    yield made
    made.kill()


def client(gateway: Gateway, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0)


def test_a_tenant_reaches_nothing_of_the_other_one(
    gateway: Gateway, other: Gateway, player: Player
) -> None:
    mine = client(gateway, gateway.keys[OWNER])
    file = mine.files.create(file=("train.jsonl", ROWS), purpose="fine-tune")
    job = mine.fine_tuning.jobs.create(model="ada", training_file=file.id)
    name = job.id.removeprefix("ftjob-")
    for step in (player.accept, player.start, player.epoch):
        step(name)
    model = player.publish(name)
    (results,) = mine.fine_tuning.jobs.retrieve(job.id).result_files
    address = gateway.team.get("finetune", name)["spec"]["trainingFile"]

    theirs = client(other, other.keys[OWNER])
    assert [it.id for it in theirs.files.list()] == []
    assert [it.id for it in theirs.fine_tuning.jobs.list()] == []
    assert model not in {it.id for it in theirs.models.list()}
    refused: list[Callable[[], Any]] = [
        lambda: theirs.files.retrieve(file.id),
        lambda: theirs.files.content(file.id),
        lambda: theirs.files.delete(file.id),
        lambda: theirs.files.content(results),
        lambda: theirs.fine_tuning.jobs.retrieve(job.id),
        lambda: theirs.fine_tuning.jobs.list_events(job.id),
        lambda: theirs.fine_tuning.jobs.cancel(job.id),
        lambda: theirs.models.retrieve(model),
        lambda: theirs.models.delete(model),
        lambda: theirs.completions.create(model=model, prompt="a"),
        lambda: theirs.fine_tuning.jobs.create(model=model, training_file=address),
    ]
    for call in refused:
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
            call()
    assert mine.files.content(file.id).read() == ROWS
    assert mine.models.retrieve(model).id == model
    assert mine.fine_tuning.jobs.retrieve(job.id).status == "succeeded"


def test_a_key_and_a_token_of_one_tenant_are_nothing_to_the_other(
    gateway: Gateway, other: Gateway
) -> None:
    with pytest.raises(openai.AuthenticationError):
        client(other, gateway.keys[OWNER]).models.list()
    token = gateway.team("create", "token", OWNER).strip()
    client(gateway, token).models.list()
    foreign = client(other, token)
    for call in (
        foreign.models.list,
        foreign.files.list,
        foreign.fine_tuning.jobs.list,
        lambda: foreign.files.create(file=("train.jsonl", ROWS), purpose="fine-tune"),
    ):
        with pytest.raises(openai.PermissionDeniedError, match=other.team.namespace):
            call()
