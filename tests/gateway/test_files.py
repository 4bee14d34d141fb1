"""The files API with OpenAI's own client, over a real store."""

from __future__ import annotations

from openai.types import FileObject

from tests.gateway.files_server import ROW, FilesServer


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
    assert client.files.delete(made.id).deleted
    assert served.keys == []


def test_the_objects_are_those_of_the_newest_client(served: FilesServer) -> None:
    raw = served.client().files.with_raw_response
    made = raw.create(file=("train.jsonl", ROW), purpose="fine-tune")
    FileObject.model_validate_json(made.content, strict=True)
