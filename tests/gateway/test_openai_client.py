"""OpenAI's newest Python client against the endpoints of FineTunes and Models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI, BadRequestError, NotFoundError, PermissionDeniedError

from finetune_gateway.routes import fine_tunes, jobs, models
from finetune_gateway.routes.context import Services
from finetune_web.answers import problem_response
from finetune_web.problems import unavailable
from tests.gateway.fine_tune_lives import running
from tests.support.gateway_app import gateway_app, gateway_services
from tests.support.gateway_cluster import MemoryCluster

SPEC = {"model": "ada", "trainingFile": "s3://acme/train.jsonl"}


class LostAnswers:
    """A proxy whose clients do not get the answers to their first POSTs."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.retries: list[str] = []  # the headers of the POSTs

    def attach(self, app: web.Application) -> None:
        @web.middleware
        async def lose(request: web.Request, handler: object) -> web.StreamResponse:
            answer: web.StreamResponse = await handler(request)  # type: ignore[operator]
            if request.method == "POST":
                self.retries.append(request.headers.get("x-stainless-retry-count", ""))
                if len(self.retries) <= self.count:
                    problem = unavailable("The answer was lost.")
                    problem.retry_after = None
                    return problem_response(problem)
            return answer

        app.middlewares.insert(0, lose)


@asynccontextmanager
async def a_client(parts: Services, lost: LostAnswers | None = None) -> AsyncIterator[AsyncOpenAI]:
    app = gateway_app(parts, fine_tunes.ROUTES, jobs.ROUTES, models.ROUTES)
    if lost:
        lost.attach(app)
    server = TestServer(app)
    await server.start_server()
    try:
        url = str(server.make_url("/v1"))
        async with AsyncOpenAI(base_url=url, api_key="sk-ft-anna", timeout=20) as client:
            yield client
    finally:
        await server.close()


def cluster_of(parts: Services) -> MemoryCluster:
    assert isinstance(parts.cluster, MemoryCluster)
    return parts.cluster


async def test_a_job_from_its_creation_to_its_end() -> None:
    parts = gateway_services()
    async with a_client(parts) as client:
        job = await client.fine_tuning.jobs.create(
            model="ada",
            training_file="s3://acme/train.jsonl",
            suffix="support tone",
            seed=7,
            metadata={"team": "a"},
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            extra_body={"finetune": {"resources": {"gpusPerNode": 0}}},
        )
        assert (job.status, job.seed, job.metadata) == ("queued", 7, {"team": "a"})
        name = job.id.removeprefix("ftjob-")
        await cluster_of(parts).set_status(name, **running().status.to_dict())
        job = await client.fine_tuning.jobs.retrieve(job.id)
        assert job.status == "running"
        assert job.method is not None
        assert job.method.supervised is not None
        assert job.method.supervised.hyperparameters is not None
        assert job.method.supervised.hyperparameters.n_epochs == 2
        events = [event async for event in client.fine_tuning.jobs.list_events(job.id, limit=1)]
        assert events[-1].message == "Created fine-tune: tone"
        assert [one async for one in client.fine_tuning.jobs.checkpoints.list(job.id)] == []
        assert (await client.fine_tuning.jobs.pause(job.id)).status == "paused"
        assert (await client.fine_tuning.jobs.resume(job.id)).status == "running"
        await client.fine_tuning.jobs.cancel(job.id)
    assert cluster_of(parts).spec_of(name)["cancel"] is True


async def test_a_loop_over_all_jobs_and_models() -> None:
    parts = gateway_services()
    for number in range(45):
        await cluster_of(parts).add("finetunes", f"tone-{number}", SPEC)
    async with a_client(parts) as client:
        found = [job.id async for job in client.fine_tuning.jobs.list(limit=10)]
        assert len(set(found)) == 45
        assert [model.id async for model in client.models.list()] == ["ada", "curie"]
        assert (await client.models.retrieve("ada")).owned_by == "system"
        page = await client.fine_tuning.jobs.list(metadata={"team": "a"})
        assert page.data == []


async def test_the_errors_of_the_client() -> None:
    parts = gateway_services()
    cluster_of(parts).refuse("delete", "models")
    spec = {
        "id": "ada:ft-acme:tone",
        "uri": "s3://bucket/out/model",
        "base": "ada",
        "pretrainingLearningRate": 0.001,
        "contextLength": 256,
    }
    await cluster_of(parts).add("models", "ada-ft-acme-tone", spec)
    async with a_client(parts) as client:
        with pytest.raises(NotFoundError, match="There is no fine-tune 'ftjob-x'"):
            await client.fine_tuning.jobs.retrieve("ftjob-x")
        with pytest.raises(BadRequestError) as refused:
            await client.fine_tuning.jobs.create(model="gpt-4", training_file="s3://acme/x")
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
        assert refused.value.request_id is not None
        with pytest.raises(PermissionDeniedError, match="You must be an owner"):
            await client.models.delete("ada:ft-acme:tone")


async def test_a_lost_answer_makes_no_second_fine_tune() -> None:
    parts, lost = gateway_services(), LostAnswers(2)
    async with a_client(parts, lost) as client:
        job = await client.fine_tuning.jobs.create(
            model="ada", training_file="s3://acme/train.jsonl"
        )
    assert lost.retries == ["0", "1", "2"]
    assert set(cluster_of(parts).objects["finetunes"]) == {job.id.removeprefix("ftjob-")}


async def test_a_lost_answer_to_a_cancellation_is_no_error() -> None:
    parts, lost = gateway_services(), LostAnswers(1)
    await cluster_of(parts).add("finetunes", "tone", SPEC, status={"state": "running"})
    async with a_client(parts, lost) as client:
        job = await client.fine_tuning.jobs.pause("ftjob-tone")
    assert job.status == "paused"
    assert lost.retries == ["0", "1"]
