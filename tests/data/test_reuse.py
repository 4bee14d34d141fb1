"""The prepare Job finds the model that a former FineTune of the same name has published."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.names import LOCAL_BUCKET
from finetune_api.outcome import Outcome, Prepared
from finetune_api.tasks import MethodRef, PrepareTask, RankResources, ReuseRef, RunRef, TrainTask
from finetune_api.uris import S3Uri
from finetune_data.lookup import reuse
from finetune_data.lookup.reuse import Search, find_same
from finetune_data.prepare.job import prepare
from finetune_data.tokenize.dataset import DatasetManifest, read_manifest
from finetune_storage.local import LocalStorage
from finetune_storage.s3 import Storage
from tests.data.builders import examples, jsonl, objects_read, prepare_task, put_folder
from tests.support.proxy import Answer, FaultyProxy, Seen, Store, let_pass, s3_error
from tests.support.published import FILES, Change, publish
from tests.support.stores import STORES

FORMER = "11111111-2222-3333-4444-555555555555"
OLDEST = "00000001-2222-3333-4444-555555555555"
OLDER = "00000000-2222-3333-4444-555555555555"
NEW = "aaaaaaaa-2222-3333-4444-555555555555"
ID = "tiny:ft-team:custom-2026-11-21-12-00-00"
REUSE = ReuseRef(organization="Team", suffix="Custom")


class Known(NamedTuple):
    """What a prepare Job found out."""

    task: PrepareTask  # with the revision of the base model
    prepared: Prepared
    dataset: DatasetManifest


class Shop:
    """A namespace with one FineTune, whose former lives have published models."""

    def __init__(self, storage: Storage, bucket: str, folder: Path) -> None:
        self.storage = storage
        self.bucket = bucket
        self.folder = folder
        self.runs = 0

    def write(self, key: str, data: bytes) -> None:
        self.storage.write_bytes(S3Uri(self.bucket, key), data)

    def run_of(self, uid: str, **changes: Any) -> RunRef:
        values = {"namespace": "team", "name": "tone", "output": f"s3://{self.bucket}/out"}
        return RunRef(uid=uid, **(values | changes))

    def task(self, uid: str = NEW, **changes: Any) -> PrepareTask:
        values = {"run": self.run_of(uid), "reuse": REUSE}
        return prepare_task(self.bucket, **(values | changes))

    def prepare(self, task: PrepareTask) -> Outcome:
        self.runs += 1
        folder = self.folder / str(self.runs)
        folder.mkdir()
        outcome = prepare(task, self.storage, folder)
        assert outcome.failure is None, outcome.failure
        assert Outcome.parse(outcome.to_termination_message()) is not None
        return outcome

    def know(self, **changes: Any) -> Known:
        """Run the prepare Job of the former FineTune."""
        task = self.task(FORMER, **(changes | {"reuse": None}))
        found = self.prepare(task).prepared
        assert found is not None
        dataset = read_manifest(S3Uri.parse(found.dataset), self.storage)
        assert dataset is not None
        base = task.base.replace(revision=found.base_revision)
        return Known(task.replace(base=base), found, dataset)

    def publish(
        self,
        known: Known,
        uid: str = FORMER,
        *,
        of_run: Change = lambda raw: raw,
        of_model: Change = lambda raw: raw,
        **place: str,
    ) -> None:
        """Publish what a FineTune trained. of_run, of_model: changes of the two manifests."""
        task = known.task.replace(run=self.run_of(uid, **place))
        train = _train_task(task, known.prepared)
        publish(train, ID, known.dataset, self.storage, of_run=of_run, of_model=of_model)

    def find(self, known: Known, **changes: Any) -> Search:
        """Search as the prepare Job does. changes: of its task."""
        place = {it: changes.pop(it) for it in ("name", "namespace", "output") if it in changes}
        chosen = changes.pop("hyperparameters", known.prepared.hyperparameters)
        task = known.task.replace(run=self.run_of(NEW, **place), reuse=REUSE)
        prepared = known.prepared.replace(hyperparameters=chosen)
        return find_same(task.replace(**changes), known.dataset, prepared, self.storage)


def _train_task(task: PrepareTask, found: Prepared) -> TrainTask:
    return TrainTask(
        run=task.run,
        attempt=1,
        base=task.base.replace(revision=found.base_revision),
        dataset=found.dataset,
        organization=REUSE.organization,
        suffix=REUSE.suffix,
        hyperparameters=found.hyperparameters,
        training_examples=found.training_examples,
        training_file=task.training_file,
        method=task.method,
        nodes=task.workers.nodes,
        processes_per_node=task.workers.processes_per_node,
        accelerator=task.workers.accelerator,
        master_host="pod-0",
        master_port=1,
        progress_port=2,
    )


@pytest.fixture
def shop(storage: Storage, bucket: str, model_folder: Path, tmp_path: Path) -> Shop:
    """In a store, for the whole Job."""
    return _opened(Shop(storage, bucket, tmp_path), model_folder)


@pytest.fixture(scope="module")
def known(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Of a data file on this machine."""
    folder = tmp_path_factory.mktemp("known")
    shop = Shop(LocalStorage(folder / "root"), LOCAL_BUCKET, folder)
    return _opened(shop, model_folder).know()


@pytest.fixture
def local(tmp_path: Path) -> Shop:
    """In a folder, for the search alone."""
    return Shop(LocalStorage(tmp_path / "root"), LOCAL_BUCKET, tmp_path)


def _opened(shop: Shop, model_folder: Path) -> Shop:
    put_folder(shop.storage, model_folder, S3Uri(shop.bucket, "model"))
    shop.write("train.jsonl", jsonl(examples(20)))
    return shop


@pytest.mark.slow
def test_the_same_training_is_found_with_what_rank_0_reported(shop: Shop) -> None:
    shop.publish(shop.know())
    with objects_read(shop.storage) as names:
        outcome = shop.prepare(shop.task())
    found = outcome.adopted
    assert found is not None and outcome.prepared is not None
    assert (found.uid, found.fine_tuned_model) == (FORMER, ID)
    manifest = S3Uri(shop.bucket, "out/team/tone-11111111/model/manifest.json")
    written = shop.storage.read_bytes(manifest)
    assert found.model_manifest_sha256 == hashlib.sha256(written).hexdigest()
    assert (found.steps, found.trained_tokens) == (80, 10_000)
    assert (found.first_loss, found.training_loss) == (2.5, 1.25)
    assert not any("adopt" in sentence for sentence in outcome.prepared.advice or [])
    assert {path.rpartition("/")[2] for path in FILES} <= set(names)  # every byte


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": RankResources(nodes=2, processes_per_node=1, memory_gib=64, zero_stage=2)},
        {"reuse": ReuseRef(organization="team", suffix="custom")},
    ],
    ids=["resources", "letter case"],
)
def test_what_leaves_the_weights_alone_is_not_compared(
    local: Shop, known: Known, changes: Any
) -> None:
    local.publish(known)
    assert local.find(known, **changes).adopted is not None


OTHERS: dict[str, dict[str, Any]] = {
    "method": {"method": MethodRef(type="lora")},
    "accelerator": {"workers": RankResources(accelerator="nvidia")},
    "organization": {"reuse": ReuseRef(organization="other", suffix="custom")},
    "suffix": {"reuse": ReuseRef(organization="team", suffix="custom-2")},
    "no suffix": {"reuse": ReuseRef(organization="team")},
    "never": {"reuse": None},
    "name": {"name": "tone-1"},
    "namespace": {"namespace": "team2"},
    "output": {"output": f"s3://{LOCAL_BUCKET}/out2"},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_training_is_not_found(local: Shop, known: Known, what: str) -> None:
    local.publish(known)
    assert local.find(known, **OTHERS[what]) == Search(None, [])


@pytest.mark.parametrize("field", ResolvedHyperparameters.model_fields)
def test_every_hyperparameter_counts(local: Shop, known: Known, field: str) -> None:
    local.publish(known)
    value = getattr(known.prepared.hyperparameters, field)
    other: Any = "constant" if isinstance(value, str) else (value or 0) + 1
    changed = known.prepared.hyperparameters.replace(**{field: other})
    assert local.find(known, hyperparameters=changed) == Search(None, [])


@pytest.mark.parametrize("field", ["root", "uri", "revision"])
def test_another_base_model_is_not_found(local: Shop, known: Known, field: str) -> None:
    local.publish(known)
    base = known.task.base.replace(**{field: "other"})
    assert local.find(known, base=base) == Search(None, [])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a copy", "data", "validation", "base", "ending", "tolerance"])
def test_the_contents_of_the_inputs_decide(shop: Shop, what: str, model_folder: Path) -> None:
    shop.write("valid.jsonl", jsonl(examples(5, 100)))
    given: dict[str, Any] = {"validation_file": f"s3://{shop.bucket}/valid.jsonl"}
    shop.publish(shop.know(**given))
    assert shop.prepare(shop.task(**given)).adopted is not None
    if what in {"a copy", "ending"}:
        name = "copy.jsonl" if what == "a copy" else "copy.txt"
        shop.write(name, jsonl(examples(20)))
        given["training_file"] = f"s3://{shop.bucket}/{name}"
    elif what == "data":
        shop.write("train.jsonl", jsonl([*examples(19), *examples(1, 50)]))
    elif what == "validation":
        shop.write("valid.jsonl", jsonl(examples(5, 200)))
    elif what == "base":
        shop.write("model/config.json", (model_folder / "config.json").read_bytes() + b"\n")
    else:
        given["data_tolerance"] = 0.5
    assert (shop.prepare(shop.task(**given)).adopted is not None) == (what == "a copy")


def test_names_that_begin_with_this_name_do_not_match(local: Shop, known: Known) -> None:
    for name in ("tone-2", "tone-11111111", "tone-deadbeef"):
        local.publish(known, name=name)
    local.publish(known, "1111111")  # seven characters
    local.publish(known, "1111111G-2222")
    assert local.find(known) == Search(None, [])
    local.publish(known)
    assert local.find(known).adopted is not None
    assert local.find(known, name="tone-2").adopted is not None


def test_the_newest_of_several_is_adopted(local: Shop, known: Known, tmp_path: Path) -> None:
    for uid, age in ((OLDER, 10), (FORMER, 20), (OLDEST, 30)):
        local.publish(known, uid)
        path = tmp_path / f"root/out/team/tone-{uid[:8]}/model/manifest.json"
        os.utime(path, (1e9 - age, 1e9 - age))
    found = local.find(known).adopted
    assert found is not None and found.uid == OLDER


def test_an_unusable_model_does_not_hide_an_older_one(local: Shop, known: Known) -> None:
    local.publish(known, OLDER)
    local.publish(known)
    local.write("out/team/tone-11111111/model/config.json", b"[]")
    found = local.find(known)
    assert found.adopted is not None and found.adopted.uid == OLDER


def test_of_many_prefixes_a_bounded_number_is_looked_at(
    local: Shop, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "PREFIXES", 3)
    monkeypatch.setattr(reuse, "MODELS", 2)
    for number in range(6):
        local.write(f"out/team/tone-{number:08x}/model/manifest.json", b"{}")
    assert len(local.find(known).advice) == 2


# --- forged and damaged models --------------------------------------------------------------------


def put(*keys: str, value: Any) -> Change:
    """A change of one value of a manifest."""

    def change(raw: dict[str, Any]) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


def _files(change: Callable[[list[dict[str, Any]]], Any]) -> Change:
    def apply(raw: dict[str, Any]) -> None:
        change(raw["files"])

    return apply


FORGED_RUNS: dict[str, Change] = {
    "other namespace": put("run", "namespace", value="other"),
    "other name": put("run", "name", value="tone-2"),
    "other UID": put("run", "uid", value=OLDER),
    "other output": put("run", "output", value="s3://stranger/out"),
    "other manifest": put("trained", "modelManifestSha256", value="0" * 64),
    "other model": put("trained", "fineTunedModel", value=ID + "-x"),
    "not trained": lambda raw: raw.pop("trained") and None,
    "no revision": lambda raw: raw["base"].pop("revision") and None,
    "other base": put("base", "revision", value="sha256:0"),
    "other seed": put("hyperparameters", "seed", value=1),
    "no digest": put("dataset", "inputs", "train", "sha256", value=""),
    "other digest": put("dataset", "inputs", "train", "sha256", value="0" * 64),
    "unknown key": put("futureSetting", value=1),
    "unknown hyperparameter": put("hyperparameters", "dropout", value=0.5),
    "unknown setting of the data": put("dataset", "shuffled", value=True),
    "unknown count": put("splits", "train", "augmented", value=3),
    "text for a number": put("hyperparameters", "seed", value="42"),
    "a list": lambda raw: [raw],
    "nothing": lambda raw: {},
    "other kind": put("kind", value="model"),
}
FORGED_MODELS: dict[str, Change] = {
    "other namespace": put("fineTune", value="other/tone"),
    "other name": put("fineTune", value="team/tone-2"),
    "other UID": put("fineTuneUid", value=OLDER),
    "no UUID": put("fineTuneUid", value="11111111/../../x"),
    "unknown key": put("futureSetting", value=1),
    "no files": put("files", value=[]),
    "a file of another run": _files(lambda it: it[0].update(path="../../other/config.json")),
    "an absolute path": _files(lambda it: it[0].update(path="/config.json")),
    "a file twice": _files(lambda it: it.append(it[0])),
    "its own manifest": _files(lambda it: it.append({**it[0], "path": "manifest.json"})),
    "other digest": _files(lambda it: it[1].update(sha256="0" * 64)),
    "other size": _files(lambda it: it[1].update(size=10**15)),
    "a missing file": _files(lambda it: it.append({**it[0], "path": "gone.json"})),
    "no weights": _files(lambda it: it.__delitem__(slice(1, None))),
    "negative tokens": put("trainedTokens", value=-1),
    "huge": put("separator", value="x" * (reuse.MANIFEST_BYTES + 1)),
    "other name of the model": put("id", value="tiny:ft-other-2026-11-21-12-00-00"),
    "a name without a time": put("id", value="tiny:ft-team:custom"),
}


@pytest.mark.parametrize("what", FORGED_RUNS)
def test_a_forged_or_foreign_provenance_adopts_nothing(
    local: Shop, known: Known, what: str
) -> None:
    local.publish(known, of_run=FORGED_RUNS[what])
    assert local.find(known).adopted is None


@pytest.mark.parametrize("what", FORGED_MODELS)
def test_a_forged_or_foreign_manifest_adopts_nothing(local: Shop, known: Known, what: str) -> None:
    local.publish(known, of_model=FORGED_MODELS[what])
    assert local.find(known).adopted is None


@pytest.mark.parametrize("name", FILES)
def test_swapped_files_adopt_nothing(local: Shop, known: Known, name: str) -> None:
    local.publish(known)
    local.write(f"out/team/tone-11111111/model/{name}", FILES[name].swapcase()[::-1])
    [sentence] = local.find(known).advice
    assert name in sentence and "SHA-256" in sentence


def test_a_model_of_another_prefix_is_not_adopted(local: Shop, known: Known) -> None:
    """All files of one prefix are moved to another one of the same name."""
    local.publish(known)
    root = local.folder / "root/out/team"
    (root / "tone-11111111").rename(root / "tone-22222222")
    found = local.find(known)
    assert found.adopted is None and "another prefix" in found.advice[0]


def test_the_own_prefix_is_none_of_a_former_finetune(local: Shop, known: Known) -> None:
    local.publish(known, NEW)
    assert local.find(known) == Search(None, [])


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b'{"a": 1e999}', b"\xff\xfe\x00"])
@pytest.mark.parametrize("path", ["manifest.json", "model/manifest.json"])
def test_a_manifest_that_is_none_adopts_nothing(
    local: Shop, known: Known, path: str, data: bytes
) -> None:
    local.publish(known)
    local.write(f"out/team/tone-11111111/{path}", data)
    found = local.find(known)
    assert found.adopted is None and "is not adopted" in found.advice[0]


def test_a_manifest_of_an_earlier_version_is_enough(local: Shop, known: Known) -> None:
    """What it lacks has a default, and nothing of it decides on the weights."""

    def remove(*names: str) -> Change:
        return lambda raw: [raw.pop(name, None) for name in names] and None

    older = remove("firstLoss", "separator", "before", "endTokens", "method")
    local.publish(known, of_model=older, of_run=remove("trainingFiles"))
    assert local.find(known).adopted is not None


@settings(max_examples=30, derandomize=True, database=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_a_value_is_a_part_of_itself_and_not_of_less(value: Any) -> None:
    assert reuse._is_part({"a": value}, {"a": value, "b": 1})
    assert value is None or not reuse._is_part({"a": value}, {"b": value})


# --- stores ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_kind_of_store_gives_the_model_back(shop: Shop, client: Storage, weak: str) -> None:
    shop.storage = client
    shop.publish(shop.know())
    found = shop.prepare(shop.task()).adopted
    assert found is not None and found.uid == FORMER


class Listings(Store):
    """A store that answers listings of folders in its own way."""

    def __init__(self, answer: Answer | bytes) -> None:
        self._answer = answer

    def alter_request(self, request: web.Request, headers: dict[str, str]) -> Answer | None:
        is_answer = isinstance(self._answer, Answer) and "delimiter" in request.query
        return self._answer if is_answer else None  # type: ignore[return-value]

    def alter_answer(self, request: web.Request, headers: dict[str, str], body: bytes) -> bytes:
        if "delimiter" not in request.query or not isinstance(self._answer, bytes):
            return body
        return self._answer


PAGE = b'<?xml version="1.0"?><ListBucketResult>%s</ListBucketResult>'
ANSWERS: dict[str, Answer | bytes] = {
    "denied": s3_error(403, "AccessDenied"),
    "not implemented": s3_error(501, "NotImplemented"),
    "no XML": b"<html>",
    "an empty page": PAGE % b"",
    "no prefix": PAGE % b"<CommonPrefixes></CommonPrefixes>",
    "other prefixes": PAGE % b"<CommonPrefixes><Prefix>other/</Prefix></CommonPrefixes>",
    "a page without an end": PAGE
    % b"<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>",
}


def trains(outcome: Outcome) -> list[str]:
    """The advice of a prepare Job that adopts nothing."""
    assert outcome.adopted is None and outcome.prepared is not None
    assert outcome.prepared.steps == 80
    return outcome.prepared.advice or []


@pytest.mark.slow
@pytest.mark.parametrize("what", ANSWERS)
def test_a_store_that_does_not_list_costs_only_the_adoption(
    shop: Shop, client: Storage, proxy: FaultyProxy, what: str
) -> None:
    shop.publish(shop.know())
    shop.storage, proxy.store = client, Listings(ANSWERS[what])
    try:
        advice = trains(shop.prepare(shop.task()))
    finally:
        proxy.store = STORES["S3"]()
    if what in {"denied", "not implemented", "no XML", "no prefix"}:
        [sentence] = [text for text in advice if "were not searched for" in text]
        assert "tone" in sentence and "so this one trains" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("part", ["config.json", "model/manifest.json", "-11111111/manifest.json"])
def test_a_file_that_cannot_be_read_costs_only_the_adoption(
    shop: Shop, client: Storage, proxy: FaultyProxy, part: str
) -> None:
    shop.publish(shop.know())
    shop.storage = client

    def deny(seen: Seen) -> Answer | None:
        is_part = "tone-11111111" in seen.path and seen.path.endswith(part)
        return s3_error(403, "AccessDenied") if is_part else None

    proxy.rule = deny
    try:
        advice = trains(shop.prepare(shop.task()))
    finally:
        proxy.rule = let_pass
    assert any("is not adopted" in text for text in advice)


def test_a_folder_of_this_machine_is_searched_like_a_store(tmp_path: Path) -> None:
    storage, parent = LocalStorage(tmp_path), S3Uri(LOCAL_BUCKET, "team")
    assert storage.folders(parent, "tone-") == []
    for name in ("tone-2/a", "tone-1/a", "other/a", "tone-file"):
        storage.write_bytes(parent.child(name), b"")
    assert storage.folders(parent, "tone-") == ["tone-1", "tone-2"]
