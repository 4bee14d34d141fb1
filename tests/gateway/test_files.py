"""The files API with OpenAI's own client, over a real store."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

import openai
import pytest
import requests
from openai.types import FileDeleted, FileObject

from finetune_api.uris import S3Uri
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.metrics import REGISTRY
from finetune_gateway.wire.ids import new_file_id
from tests.gateway.files_server import HEADERS, ROW, FilesServer
from tests.support.gateway_app import UPLOADED_AT

pytestmark = pytest.mark.slow

SPEC = {"model": "ada", "trainingFile": "s3://elsewhere/train.jsonl"}


def upload(served: FilesServer, name: str = "train.jsonl", rows: int = 1) -> FileObject:
    return served.client().files.create(file=(name, ROW * rows), purpose="fine-tune")


def get(served: FilesServer, path: str, **options: Any) -> requests.Response:
    return requests.get(served.url + path, headers=HEADERS, timeout=30, **options)


def error_of(answer: requests.Response) -> dict[str, Any]:
    """The error of the envelope, which has no other key."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]  # type: ignore[no-any-return]


def test_a_file_is_uploaded_listed_read_and_deleted(served: FilesServer) -> None:
    client = served.client()
    made = client.files.create(file=("data/train.jsonl", ROW * 3), purpose="fine-tune")
    assert made.filename == "train.jsonl"
    assert made.bytes == 3 * len(ROW)
    assert made.status == "processed"
    assert served.keys == [f"gateway/ml/files/{made.id}/fine-tune/train.jsonl"]
    assert [file.id for file in client.files.list()] == [made.id]
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).content == ROW * 3
    assert client.files.wait_for_processing(made.id) == made
    assert client.files.delete(made.id).deleted
    assert served.keys == []


def test_the_objects_are_those_of_the_newest_client(served: FilesServer) -> None:
    raw = served.client().files.with_raw_response
    made = raw.create(file=("train.jsonl", ROW), purpose="fine-tune").content
    file = FileObject.model_validate_json(made, strict=True)
    FileObject.model_validate_json(raw.retrieve(file.id).content, strict=True)
    listed = json.loads(raw.list().content)
    assert listed["object"] == "list"
    FileObject.model_validate(listed["data"][0], strict=True)
    FileDeleted.model_validate_json(raw.delete(file.id).content, strict=True)


def test_bytes_without_a_name_are_a_file_of_lines(served: FilesServer) -> None:
    assert served.client().files.create(file=ROW, purpose="fine-tune").filename == "upload"


def test_the_bytes_of_files_are_counted(served: FilesServer, tmp_path: Path) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("finetune_gateway_upload_bytes_total") or 0.0

    before = count()
    upload(served, rows=3)
    requests.post(f"{served.url}/v1/files", headers=HEADERS, data=b"wrong", timeout=30)
    assert count() - before == 3 * len(ROW)
    path = tmp_path / "train.jsonl"
    path.write_bytes(ROW * 2)
    served.client().uploads.upload_file_chunked(
        file=path, mime_type="text/plain", purpose="fine-tune", part_size=len(ROW)
    )
    assert count() - before == 5 * len(ROW)


def test_a_file_of_several_parts_is_stored_as_it_is(served: FilesServer) -> None:
    content = b'{"prompt": "%d", "completion": "' % 7 + b"x" * 1000 + b'"}\n'
    content *= 20_000_000 // len(content)
    made = served.client().files.create(file=("big.jsonl", content), purpose="fine-tune")
    assert made.bytes == len(content)
    assert served.client().files.content(made.id).content == content
    assert served.unfinished == []


# --- lists ---------------------------------------------------------------------------------------


def test_a_list_has_pages_in_both_orders(served: FilesServer) -> None:
    ids = [upload(served, f"{number}.jsonl").id for number in range(5)]
    files = served.client().files
    assert [file.id for file in files.list(limit=2)] == ids[::-1]
    assert [file.id for file in files.list(limit=2, order="asc")] == ids
    page = files.list(limit=2, after=ids[3], order="desc")
    assert [file.id for file in page.data] == [ids[2], ids[1]]
    assert page.has_more
    assert not files.list(limit=2, after=ids[2], order="desc").has_more


def test_a_page_follows_a_file_that_is_deleted_meanwhile(served: FilesServer) -> None:
    ids = [upload(served, f"{number}.jsonl").id for number in range(3)]
    files = served.client().files
    files.delete(ids[1])
    assert [file.id for file in files.list(after=ids[1])] == [ids[0]]
    assert [file.id for file in files.list(after=ids[1], order="asc")] == [ids[2]]


def test_a_list_has_the_files_of_a_purpose(served: FilesServer) -> None:
    made = upload(served)
    files = served.client().files
    assert [file.id for file in files.list(purpose="fine-tune")] == [made.id]
    assert list(files.list(purpose="batch")) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "ftjob-a"}, "after"),
    ],
)
def test_a_query_that_is_wrong_is_refused(
    served: FilesServer, query: dict[str, str], param: str
) -> None:
    answer = get(served, "/v1/files", params=query)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


def test_objects_that_are_no_files_are_not_listed(served: FilesServer) -> None:
    made = upload(served)
    other = new_file_id(UPLOADED_AT)
    for key in (
        "loose",
        f"{other}/fine-tune/a/b",
        f"{other}/fine-tune/..",
        f'{other}/fine-tune/"><script>',
        f"{other}/batch/a.jsonl",
        f"{other.upper()}/fine-tune/a.jsonl",
        "file-x/fine-tune/a.jsonl",
        f"{made.id}/fine-tune/zweite.jsonl",
    ):
        served.storage.write_bytes(S3Uri(served.bucket, f"gateway/ml/files/{key}"), b"x")
    assert [file.id for file in served.client().files.list()] == [made.id]
    assert served.client().files.retrieve(made.id).filename == "train.jsonl"
    assert get(served, f"/v1/files/{other}").status_code == 404


# --- ids -----------------------------------------------------------------------------------------

IDS = [
    "train.jsonl",
    "data/train.jsonl",
    "https://example.com/train.jsonl",
    "s3://bucket/train.jsonl",
    "../../etc/passwd",
    "..",
    ".",
    "x" * 2000,
    "file-",
    "file-" + "0" * 26 + "x",
    "file-8" + "0" * 25,
    "file-7" + "z" * 25,
    "file-results-",
    "file-results-../x",
    "file-report-UPPER",
    "\0",
    "é{}?#%",
]


@pytest.mark.parametrize("file_id", IDS)
@pytest.mark.parametrize("encode", [lambda text: quote(text, safe=""), quote_plus])
def test_an_id_that_no_file_has_is_404_in_the_envelope(
    served: FilesServer, file_id: str, encode: Any
) -> None:
    """The old command asks for the path of a local file first, and continues only after a 404."""
    path = encode(file_id).replace(".", "%2E") if file_id in {".", ".."} else encode(file_id)
    for end in ("", "/content"):
        answer = get(served, f"/v1/files/{path}{end}")
        assert answer.status_code == 404
        error = error_of(answer)
        assert error["message"].startswith("No such File object: ") or file_id in {".", ".."}
        assert error["param"] == "id" or file_id in {".", ".."}
    assert served.keys == []


@pytest.mark.parametrize("path", ["%FF", "%ED%A0%80", "%C3", "a%00%FFb", "%", "%zz"])
def test_an_id_that_is_no_text_is_404_in_the_envelope(served: FilesServer, path: str) -> None:
    address = urlsplit(served.url).netloc
    for end in ("", "/content"):
        client = http.client.HTTPConnection(address, timeout=30)
        client.putrequest("GET", f"/v1/files/{path}{end}")
        for name, value in HEADERS.items():
            client.putheader(name, value)
        client.endheaders()
        answer = client.getresponse()
        assert answer.status == 404
        assert set(json.loads(answer.read())) == {"error"}


@pytest.mark.parametrize("query", ["after=%FF", "limit=%ED%A0%80", "order=%C3", "purpose=%FF"])
def test_a_query_that_is_no_text_is_answered(served: FilesServer, query: str) -> None:
    assert get(served, f"/v1/files?{query}").status_code in {200, 400}


def test_the_store_is_not_asked_for_an_id_that_no_file_can_have(served: FilesServer) -> None:
    served.files.workers = None  # type: ignore[assignment]
    assert get(served, "/v1/files/data%2Ftrain.jsonl").status_code == 404


# --- what FineTunes publish ----------------------------------------------------------------------


async def add(served: FilesServer, name: str, **more: Any) -> str:
    """A FineTune; returns the prefix of its files."""
    made = await served.cluster.add("finetunes", name, SPEC | more.pop("spec", {}), **more)
    return f"out/ml/{name}-{made['metadata']['uid'][:8]}"


def test_results_and_the_report_are_files(served: FilesServer) -> None:
    prefix = served.run(add(served, "a"))
    client = served.client()
    with pytest.raises(openai.NotFoundError, match="has published no such file yet"):
        client.files.retrieve("file-results-a")
    with pytest.raises(openai.NotFoundError, match="has published no such file yet"):
        client.files.content("file-results-a")
    served.storage.write_bytes(S3Uri(served.bucket, f"{prefix}/results.csv"), b"step,loss\n1,2\n")
    served.storage.write_bytes(S3Uri(served.bucket, f"{prefix}/report.html"), b"<script>")
    results = client.files.with_raw_response.retrieve("file-results-a").content
    found = FileObject.model_validate_json(results, strict=True)
    assert (found.filename, found.purpose, found.bytes) == (
        "compiled_results.csv",
        "fine-tune-results",
        14,
    )
    assert client.files.content("file-results-a").content == b"step,loss\n1,2\n"
    report = get(served, "/v1/files/file-report-a/content")
    assert report.content == b"<script>"
    assert report.headers["Content-Type"] == "application/octet-stream"
    assert report.headers["Content-Disposition"] == 'attachment; filename="report.html"'
    assert report.headers["X-Content-Type-Options"] == "nosniff"


def test_an_empty_result_is_an_empty_file(served: FilesServer) -> None:
    prefix = served.run(add(served, "a"))
    served.storage.write_bytes(S3Uri(served.bucket, f"{prefix}/results.csv"), b"")
    assert served.client().files.content("file-results-a").content == b""


def test_a_finetune_that_the_caller_may_not_read_has_no_files(served: FilesServer) -> None:
    prefix = served.run(add(served, "a"))
    served.storage.write_bytes(S3Uri(served.bucket, f"{prefix}/results.csv"), b"x")
    served.cluster.refuse("get", "finetunes")
    with pytest.raises(openai.PermissionDeniedError):
        served.client().files.content("file-results-a")


def test_results_of_no_finetune_are_404(served: FilesServer) -> None:
    answer = get(served, "/v1/files/file-results-nosuch")
    assert answer.status_code == 404
    assert error_of(answer)["message"] == "No such File object: file-results-nosuch."


def test_results_are_not_deleted_here(served: FilesServer) -> None:
    prefix = served.run(add(served, "a"))
    served.storage.write_bytes(S3Uri(served.bucket, f"{prefix}/results.csv"), b"x")
    with pytest.raises(openai.BadRequestError, match="cannot be deleted here"):
        served.client().files.delete("file-results-a")
    assert served.keys == [f"{prefix}/results.csv"]


def test_the_rows_of_the_events_are_read_as_a_whole(served: FilesServer) -> None:
    from finetune_api.finetune import FineTune

    prefix = served.run(add(served, "a"))
    found = FineTune.parse(served.cluster.objects["finetunes"]["a"])
    assert served.run(served.files.read_results(found)) is None
    served.storage.write_bytes(S3Uri(served.bucket, f"{prefix}/results.csv"), b"step,loss\n")
    assert served.run(served.files.read_results(found)) == b"step,loss\n"


# --- deletion ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        lambda uri: {"trainingFile": uri},
        lambda uri: {"validationFile": uri},
        lambda uri: {
            "trainingFile": None,
            "trainingFiles": [{"uri": "s3://elsewhere/x"}, {"uri": uri}],
        },
    ],
)
@pytest.mark.parametrize("state", [None, "pending", "running"])
def test_a_file_that_a_finetune_reads_is_not_deleted(
    served: FilesServer, spec: Any, state: str | None
) -> None:
    made = upload(served)
    uri = f"s3://{served.bucket}/{served.keys[0]}"
    wanted = {key: value for key, value in (SPEC | spec(uri)).items() if value is not None}
    status = {} if state is None else {"state": state}
    served.run(served.cluster.add("finetunes", "a", wanted, status=status))
    with pytest.raises(openai.BadRequestError, match="The fine-tune ftjob-a is ") as caught:
        served.client().files.delete(made.id)
    assert caught.value.code == "file_in_use"
    served.run(served.cluster.set_status("a", state="succeeded"))
    assert served.client().files.delete(made.id).deleted


def test_an_object_of_a_later_version_still_protects_its_file(served: FilesServer) -> None:
    made = upload(served)
    uri = f"s3://{served.bucket}/{served.keys[0]}"
    served.run(add(served, "a"))
    odd = served.cluster.objects["finetunes"]["a"]
    odd["spec"] = {"model": {"new": "form"}, "trainingFile": uri}
    odd["status"] = "odd"
    with pytest.raises(openai.BadRequestError, match="ftjob-a is pending"):
        served.client().files.delete(made.id)


def test_a_file_that_is_not_there_cannot_be_deleted(served: FilesServer) -> None:
    with pytest.raises(openai.NotFoundError):
        served.client().files.delete(new_file_id(UPLOADED_AT))


# --- rights --------------------------------------------------------------------------------------


def test_who_may_not_create_finetunes_may_not_upload(served: FilesServer) -> None:
    served.cluster.refuse("create", "finetunes")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        upload(served)
    assert "You must be a user (role finetune-user) to upload files in ml." in str(caught.value)
    assert "The account anna of this key is not." in str(caught.value)
    assert served.keys == []
    with pytest.raises(openai.PermissionDeniedError):
        served.client().uploads.create(
            bytes=1, filename="a", mime_type="text/plain", purpose="fine-tune"
        )


def test_who_may_not_list_finetunes_may_not_read_files(served: FilesServer) -> None:
    made = upload(served)
    served.cluster.refuse("list", "finetunes")
    for path in ("", f"/{made.id}", f"/{made.id}/content", "/data%2Ftrain.jsonl"):
        answer = get(served, f"/v1/files{path}")
        assert answer.status_code == 403
        assert "to read files in ml" in error_of(answer)["message"]


def test_only_owners_delete_files(served: FilesServer) -> None:
    made = upload(served)
    served.cluster.refuse("delete", "finetunes")
    with pytest.raises(openai.PermissionDeniedError, match=r"an owner \(role finetune-owner\)"):
        served.client().files.delete(made.id)
    assert len(served.keys) == 1


def test_an_api_server_that_is_away_is_503(
    served: FilesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def may(*_: object) -> bool:
        raise KubeError(0, "away")

    monkeypatch.setattr(served.cluster, "may", may)
    answer = get(served, "/v1/files")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_without_a_key_there_is_no_answer(served: FilesServer) -> None:
    assert requests.get(f"{served.url}/v1/files", timeout=30).status_code == 401
    with pytest.raises(openai.AuthenticationError):
        served.client("other").files.list()
