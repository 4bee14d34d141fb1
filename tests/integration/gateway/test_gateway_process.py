"""The gateway's process: its start, its probes, its log, and its end with open streams."""

import http.client
import json
import threading
import time
from typing import Any

import openai
import pytest

from tests.integration.gateway.conftest import OWNER, STRANGER, USER, Gateway
from tests.support.kubectl import finetune, until
from tests.support.proxy import Answer, Cut, Fault, FaultyProxy, Seen

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STREAMS = 200


class Follower(threading.Thread):
    """Reads a stream of events to its end."""

    def __init__(self, gateway: Gateway, key: str, path: str, after: str = "") -> None:
        """after: the number of the last event of a former stream."""
        super().__init__(daemon=True)
        self.events: list[Any] = []
        self.numbers: list[str] = []
        headers = {"Last-Event-ID": after} if after else {}
        self._answer = gateway.ask("GET", path, key, **headers)
        assert self._answer.status == 200

    def run(self) -> None:
        for line in self._answer:
            if line.startswith(b"id: "):
                self.numbers.append(line.removeprefix(b"id: ").strip().decode())
            if line.startswith(b"data: "):
                text = line.removeprefix(b"data: ").strip().decode()
                self.events.append(text if text == "[DONE]" else json.loads(text))


def test_each_of_200_streams_ends_with_a_message_and_continues_on_another_gateway(
    gateway: Gateway,
) -> None:
    key = gateway.add_key(USER)
    gateway.start()
    team = gateway.team.kubectl
    team.apply(finetune("a", model="ada"))
    events = [
        {
            "at": "2026-11-21T12:00:00Z",
            "reason": f"R{number}",
            "message": f"M{number}",
            "seq": number,
        }
        for number in range(1, 6)
    ]
    team.patch_status("finetune", "a", {"state": "running", "events": events[:2]})
    path = "/v1/fine-tunes/ft-a/events?stream=true"
    first = [Follower(gateway, key, path) for _ in range(STREAMS)]
    for follower in first:
        follower.start()
    until(lambda: all(len(it.events) == 2 for it in first), 60, gateway.log)
    assert f"finetune_gateway_open_streams {STREAMS}.0" in gateway.probe("/metrics")[1]
    gateway.terminate()
    for follower in first:
        follower.join(15)
        assert not follower.is_alive()
        assert [event["message"] for event in follower.events[:-1]] == ["M1", "M2"]
        assert follower.events[-1]["error"]["code"] == "service_unavailable"
    assert gateway.process is not None
    assert gateway.process.wait(15) == 0
    team.patch_status("finetune", "a", {"state": "running", "events": events[:4]})
    gateway.start()
    second = [Follower(gateway, key, path, it.numbers[-1]) for it in first]
    for follower in second:
        follower.start()
    until(lambda: all(len(it.events) == 2 for it in second), 60, gateway.log)
    team.patch_status("finetune", "a", {"state": "succeeded", "events": events})
    for before, after in zip(first, second, strict=True):
        after.join(30)
        assert not after.is_alive()
        assert before.numbers + after.numbers == ["1", "2", "3", "4", "5"]
        assert after.events[-1] == "[DONE]"
    assert "Traceback" not in gateway.log()


def test_a_request_in_flight_finishes_after_sigterm(gateway: Gateway) -> None:
    key = gateway.add_key(USER)
    gateway.start()
    body = json.dumps({"training_file": "s3://bucket/train.jsonl", "model": "ada"}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.putrequest("POST", "/v1/fine-tunes")
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:10])
    idle = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    idle.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
    idle.getresponse().read()
    gateway.terminate()
    until(lambda: gateway.probe("/readyz") == (503, "the process ends"), 10, gateway.log)
    with pytest.raises(OSError, match="refused"):
        gateway.ask("GET", "/v1/models", key)
    connection.send(body[10:])
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["status"] == "pending"
    assert gateway.process is not None
    assert gateway.process.wait(15) == 0
    assert len(gateway.team.kubectl.list("finetunes")) == 1


def test_a_request_that_never_ends_is_cut_off_after_the_time_of_the_settings(
    gateway: Gateway,
) -> None:
    key = gateway.add_key(USER)
    gateway.start(shutdownSeconds=1)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.putrequest("POST", "/v1/fine-tunes")
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    until(lambda: gateway.probe("/readyz")[0] == 200, 10, gateway.log)
    started = time.monotonic()
    gateway.terminate()
    assert gateway.process is not None
    assert gateway.process.wait(15) == 0
    assert time.monotonic() - started < 8


def test_a_long_credential_is_refused_in_the_envelope(gateway: Gateway) -> None:
    gateway.start()
    for length, code in ((12_000, "invalid_api_key"), (40_000, "invalid_api_key")):
        token = "eyJ0." + "a" * length + ".c2ln"
        status, body = gateway.json("GET", "/v1/fine-tunes", token)
        assert (status, body["error"]["code"]) == (401, code)


def test_the_log_and_the_metrics_have_the_route_and_the_account_but_no_key(
    gateway: Gateway,
) -> None:
    key = gateway.add_key(USER)
    gateway.start()
    token = gateway.team.token(OWNER)
    assert gateway.json("GET", "/v1/fine-tunes", key)[0] == 200
    assert gateway.json("GET", "/v1/fine-tunes/ft-secretname", token)[0] == 404
    assert gateway.json("GET", "/v1/nothing/secretpath", key)[0] == 404
    assert gateway.json("GET", "/v1/fine-tunes", "sk-openai-secretkey")[0] == 401
    text = gateway.log()
    assert "GET /v1/fine-tunes 200" in text
    assert "GET /v1/fine-tunes/{id} 404" in text
    assert "GET unknown 404" in text
    assert f" {USER}\n" in text
    for secret in (key, token, "secretname", "secretpath", "secretkey"):
        assert secret not in text
    metrics = gateway.probe("/metrics")[1]
    labels = 'method="GET",route="/v1/fine-tunes",status="200"'
    assert f"finetune_gateway_requests_total{{{labels}}} 1.0" in metrics


def test_a_key_works_until_it_is_removed_and_never_for_a_foreign_account(gateway: Gateway) -> None:
    gateway.start()
    key, foreign = gateway.add_key(USER), gateway.add_key(STRANGER)
    until(lambda: gateway.json("GET", "/v1/models", key)[0] == 200, 5, gateway.log)
    status, body = gateway.json("GET", "/v1/models", foreign)
    assert status == 403
    assert "may not act as the account eve" in body["error"]["message"]
    gateway.remove_key(key)
    until(lambda: gateway.json("GET", "/v1/models", key)[0] == 401, 5, gateway.log)


def test_a_revoked_key_ends_its_stream(gateway: Gateway) -> None:
    key = gateway.add_key(USER)
    gateway.start(keepAliveSeconds=0.5)
    gateway.team.kubectl.apply(finetune("b", model="ada"))
    gateway.team.kubectl.patch_status("finetune", "b", {"state": "running"})
    follower = Follower(gateway, key, "/v1/fine_tuning/jobs/ftjob-b/events?stream=true")
    follower.start()
    gateway.remove_key(key)
    follower.join(10)
    assert [event["error"]["code"] for event in follower.events] == ["invalid_api_key"]


def test_a_stream_ends_with_its_fine_tune(gateway: Gateway) -> None:
    key = gateway.add_key(USER)
    gateway.start()
    team = gateway.team.kubectl
    team.apply(finetune("c", model="ada"))
    follower = Follower(gateway, key, "/v1/fine-tunes/ft-c/events?stream=true")
    follower.start()
    event = {"at": "2026-11-21T12:00:00Z", "reason": "Created", "message": "Created.", "seq": 1}
    team.patch_status("finetune", "c", {"state": "pending", "message": "Waiting."})
    until(lambda: follower.events, 10, gateway.log)
    team.patch_status("finetune", "c", {"state": "cancelled", "events": [event]})
    follower.join(10)
    assert [e if isinstance(e, str) else e["message"] for e in follower.events] == [
        "Waiting.", "Created.", "[DONE]",
    ]  # fmt: skip


def test_without_an_api_server_the_process_starts_and_is_not_ready(gateway: Gateway) -> None:
    key = gateway.add_key(USER)
    gateway.kubeconfig = gateway.team.kubeconfig("http://127.0.0.1:9")
    gateway.start(waits=False)
    assert gateway.probe("/readyz")[0] == 503
    answer = gateway.ask("GET", "/v1/fine-tunes", key)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert json.loads(answer.read())["error"]["code"] == "service_unavailable"


@pytest.mark.parametrize("fault", [Answer(503), Cut()], ids=["refused", "lost"])
def test_a_create_that_fails_twice_makes_one_fine_tune(
    gateway: Gateway, proxy: FaultyProxy, fault: Fault
) -> None:
    """The newest client repeats it: after an error, and after a lost answer to a request."""
    failures = [fault, fault]

    def fail(seen: Seen) -> Fault | None:
        is_create = seen.method == "POST" and seen.resource == "finetunes"
        return failures.pop() if is_create and failures else None

    key = gateway.add_key(USER)
    gateway.kubeconfig = gateway.team.kubeconfig(proxy.url)
    gateway.start()
    proxy.rule = fail
    url = f"http://127.0.0.1:{gateway.port}/v1"
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=2)
    job = client.fine_tuning.jobs.create(model="ada", training_file="s3://bucket/train.jsonl")
    made = [item["metadata"]["name"] for item in gateway.team.kubectl.list("finetunes")]
    assert [f"ftjob-{name}" for name in made] == [job.id]
    assert len(failures) == (0 if isinstance(fault, Answer) else 1)  # a lost answer was found
