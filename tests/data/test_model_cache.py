"""The model cache: one download for all pods of a node, whatever happens to pods and files."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finetune_data.models.cache import entry as entries
from finetune_data.models.cache import volume as volumes
from finetune_data.models.cache.entry import EXPECTED, MARKER, Entry
from finetune_data.models.cache.eviction import make_room
from finetune_data.models.cache.locks import CacheError
from finetune_data.models.cache.model_cache import DamagedFileError, ModelCache
from finetune_data.models.cache.volume import CacheVolume, allocated_bytes
from tests.data.local_model import SHARDS, GatedModel, LocalModel, write_shards

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def model(tmp_path: Path) -> LocalModel:
    return LocalModel(write_shards(tmp_path / "model"))


def cache_at(root: Path, max_bytes: int | None = None, **changes: Any) -> ModelCache:
    """The cache of a new pod."""
    return ModelCache(CacheVolume.open(root, max_bytes), **{"poll_seconds": 0.01} | changes)


def provide(root: Path, model: LocalModel, **changes: Any) -> Path:
    """Get a model as a pod that ends at once."""
    cache = cache_at(root, **changes)
    try:
        return cache.provide(model, model.weights)
    finally:
        cache.close()


def entry_of(root: Path, model: LocalModel) -> Entry:
    return Entry(CacheVolume.open(root), model.location, model.weights)


def is_whole(folder: Path, model: LocalModel) -> bool:
    return all(
        not (folder / name).is_symlink()
        and (folder / name).read_bytes() == (model.source / name).read_bytes()
        for name in model.files
    )


def test_a_second_pod_downloads_nothing(root: Path, model: LocalModel) -> None:
    folder = provide(root, model)
    assert is_whole(folder, model)
    assert {path.name for path in folder.iterdir()} == {*SHARDS, MARKER}
    assert provide(root, model) == folder
    assert model.fetched_names() == sorted(SHARDS)


def test_progress_counts_every_byte_once(root: Path, tmp_path: Path) -> None:
    class Reporting(LocalModel):
        def fetch(self, names: Any, folder: Path, progress: Any = None) -> Path:
            for name in names:
                size = self.files[name].size
                progress(size // 2, size)
                progress(size, size)
            return super().fetch(names, folder, progress)

    model = Reporting(write_shards(tmp_path / "model"))
    seen: list[tuple[int, int]] = []
    cache_at(root).provide(model, model.weights, progress=lambda *it: seen.append(it))
    assert seen[-1] == (model.space_needed(), model.space_needed())
    assert seen == sorted(seen)


# --- several pods ---


class Pod(NamedTuple):
    process: subprocess.Popen[str]
    lines: list[str]

    def wait_for(self, line: Callable[[str], bool]) -> None:
        wait_for(lambda: any(map(line, self.lines)))


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def pod(root: Path, source: Path) -> Iterator[Pod]:
    """A process that gets the model, whose second shard arrives when the gate opens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.data.local_model", str(root), str(source)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = Pod(process, [])
    reader = threading.Thread(target=lambda: found.lines.extend(_lines(process)), daemon=True)
    reader.start()
    try:
        yield found
    finally:
        process.kill()
        process.communicate()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.strip()


def open_gate(source: Path) -> None:
    source.with_name(f"{source.name}.gate").touch()


@pytest.mark.slow
def test_two_pods_at_once_download_once(root: Path, tmp_path: Path) -> None:
    model = GatedModel(write_shards(tmp_path / "model"))
    with pod(root, model.source) as first:
        wait_for(lambda: len(model.fetched_names()) == 2)
        with pod(root, model.source) as second:
            second.wait_for(lambda line: line == "waiting")
            assert "waiting" not in first.lines
            open_gate(model.source)
            folder = str(entry_of(root, model).folder)
            for each in (first, second):
                each.wait_for(lambda line: line == folder)
    assert model.fetched_names() == sorted(SHARDS)
    assert is_whole(Path(folder), model)


@pytest.mark.slow
def test_a_waiting_pod_takes_over_when_the_downloading_one_is_killed(
    root: Path, tmp_path: Path
) -> None:
    """It keeps the shard that is complete."""
    model = GatedModel(write_shards(tmp_path / "model"))
    entry = entry_of(root, model)
    waited = threading.Event()
    found: list[Path] = []
    cache = cache_at(root, waiting=lambda *_: waited.set())
    done: list[int] = []
    thread = threading.Thread(
        target=lambda: found.append(
            cache.provide(model, model.weights, progress=lambda now, _: done.append(now))
        )
    )
    with pod(root, model.source) as first:
        wait_for(lambda: (entry.folder / SHARDS[0]).exists() and len(model.fetched_names()) == 2)
        thread.start()
        assert waited.wait(30)
        first.process.kill()
    open_gate(model.source)
    thread.join(30)
    assert found == [entry.folder]
    assert done[0] == model.files[SHARDS[0]].size
    assert model.fetched_names() == sorted([*SHARDS, SHARDS[1]])
    assert is_whole(entry.folder, model)
    assert {path.name for path in entry.folder.iterdir()} == {*SHARDS, MARKER}


def test_a_pod_whose_download_fails_leaves_the_next_one_a_usable_cache(
    root: Path, model: LocalModel
) -> None:
    class Broken(LocalModel):
        def fetch(self, names: Any, folder: Path, progress: Any = None) -> Path:
            (folder / next(iter(names))).write_bytes(b"half")
            raise RuntimeError("the connection broke")

    cache = cache_at(root)
    broken = Broken(model.source)
    with pytest.raises(RuntimeError):
        cache.provide(broken, broken.weights)
    assert not list(entry_of(root, model).folder.glob("incoming-*"))
    assert is_whole(provide(root, model), model)


def test_a_pod_that_hangs_with_the_lock_is_not_awaited_forever(
    root: Path, model: LocalModel
) -> None:
    entry = entry_of(root, model)
    lock = CacheVolume.open(root).lock(f"{entry.key}.download")
    assert lock is not None
    with lock:
        assert lock.try_exclusive()
        with pytest.raises(CacheError, match="without progress"):
            provide(root, model, quiet_seconds=0.05)


# --- damage ---


def test_files_are_hashed_once(
    root: Path, model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = entries.sha256
    monkeypatch.setattr(
        entries, "sha256", lambda path, *rest: (hashed.append(path.name), digest(path, *rest))[1]
    )
    known = LocalModel(model.source, has_digests=True)
    for _ in range(3):
        provide(root, known)
    assert sorted(hashed) == sorted(SHARDS)


@pytest.mark.parametrize("in_use", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir(), (path / "x").touch()),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.with_name(MARKER).unlink(),
        lambda path: (path.with_name(MARKER).unlink(), path.unlink()),
        lambda path: (path.with_name(MARKER).unlink(), path.write_bytes(b"")),
        lambda path: path.with_name(MARKER).write_bytes(b"{"),
        lambda path: path.with_name(MARKER).write_bytes(b" " * 2**21),
        lambda path: path.with_name(MARKER).write_text('{"files": {}}'),
        lambda path: (path.with_name(MARKER).unlink(), os.mkfifo(path.with_name(MARKER))),
        lambda path: (
            path.with_name(MARKER).unlink(),
            path.with_name(MARKER).symlink_to("/etc/passwd"),
        ),
        lambda path: (path.with_name(MARKER).unlink(), path.with_name(MARKER).mkdir()),
    ],
)
def test_only_damaged_files_are_downloaded_again(
    root: Path, model: LocalModel, damage: Callable[[Path], Any], in_use: bool
) -> None:
    known = LocalModel(model.source, has_digests=True)
    cache = cache_at(root)
    folder = cache.provide(known, known.weights)
    if not in_use:
        cache.close()
    path = folder / SHARDS[1]
    damage(path)
    is_intact = path.is_file() and not path.is_symlink() and is_whole(folder, known)
    known.fetched.unlink()
    provide(root, known)
    assert is_whole(folder, known)
    assert known.fetched_names() == ([] if is_intact else [SHARDS[1]])
    known.fetched.unlink(missing_ok=True)
    provide(root, known)
    assert known.fetched_names() == []
    cache.close()


def test_a_file_that_differs_from_its_published_digest_is_refused(
    root: Path, model: LocalModel
) -> None:
    known = LocalModel(model.source, has_digests=True)
    wrong = [replace(file, sha256="0" * 64) for file in known.weights]
    cache = cache_at(root)
    with pytest.raises(DamagedFileError, match="SHA-256"):
        cache.provide(known, wrong)
    assert not list(entry_of(root, known).folder.glob("model*"))
    provide(root, known)
    with pytest.raises(DamagedFileError, match="SHA-256"):  # a manifest appears later
        cache.provide(known, wrong)


def test_a_replaced_model_and_another_source_have_their_own_entries(
    root: Path, model: LocalModel
) -> None:
    folders = {provide(root, model), provide(root, LocalModel(model.source, version="2"))}
    other = LocalModel(model.source)
    other.location = "another endpoint"
    folders.add(provide(root, other))
    write_shards(model.source, 1001)
    folders.add(provide(root, LocalModel(model.source)))
    assert len(folders) == 4


# --- space ---


def models(tmp_path: Path, count: int, numbers: int = 100_000) -> list[LocalModel]:
    return [LocalModel(write_shards(tmp_path / f"m{i}", numbers, SHARDS[:1])) for i in range(count)]


def present(root: Path, those: list[LocalModel]) -> list[bool]:
    return [(entry_of(root, model).folder / MARKER).exists() for model in those]


def used_at(root: Path, model: LocalModel, seconds: int) -> None:
    """Set the time at which a pod last started to use the model."""
    os.utime(root / "v1/locks" / f"{entry_of(root, model).key}.use", (seconds, seconds))


@pytest.mark.parametrize("oldest", range(3))
def test_the_least_recently_used_models_make_room(root: Path, tmp_path: Path, oldest: int) -> None:
    *those, new = models(tmp_path, 4)
    for number, model in enumerate(those):
        provide(root, model)
        used_at(root, model, 1000 + (number - oldest) % 3)
    provide(root, those[(oldest + 1) % 3])  # the second oldest is used again
    provide(root, new, max_bytes=850_000)
    assert present(root, [*those, new]) == [*(i == (oldest + 1) % 3 for i in range(3)), True]


def test_a_model_in_use_is_never_removed(root: Path, tmp_path: Path) -> None:
    *those, new = models(tmp_path, 4)
    running = cache_at(root)
    running.provide(those[0], those[0].weights)
    for model in those[1:]:
        provide(root, model)
    for number, model in enumerate(those):
        used_at(root, model, 1000 + number)
    provide(root, new, max_bytes=1_300_000)
    assert present(root, [*those, new]) == [True, False, True, True]
    running.close()
    used_at(root, new, 1001)  # the model that was in use counts as used at the last eviction
    provide(root, those[1], max_bytes=1_300_000)
    assert present(root, [*those, new]) == [True, True, True, False]


def test_an_abandoned_download_is_removed_like_a_model(root: Path, tmp_path: Path) -> None:
    first, second = models(tmp_path, 2)
    folder = provide(root, first)
    (folder / MARKER).unlink()
    (folder / EXPECTED).write_text("999999999999")
    provide(root, second, max_bytes=500_000)
    assert not folder.exists()


def test_without_enough_room_nothing_is_removed_or_downloaded(root: Path, tmp_path: Path) -> None:
    small, large = models(tmp_path, 1)[0], LocalModel(write_shards(tmp_path / "large", 400_000))
    provide(root, small)
    with pytest.raises(CacheError, match=r"needs 0\.0 GB, but .* has only 0\.0 GB for it"):
        provide(root, large, max_bytes=1_000_000)
    assert present(root, [small, large]) == [True, False]
    assert large.fetched_names() == []


def test_a_full_volume_makes_room(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    those = models(tmp_path, 2)
    provide(root, those[0])
    monkeypatch.setattr(CacheVolume, "free_bytes", lambda self: 1000)
    provide(root, those[1])
    assert present(root, those) == [False, True]
    monkeypatch.setattr(CacheVolume, "free_bytes", lambda self: 0)
    with pytest.raises(CacheError, match=r"only 0\.0 GB"):
        provide(root, LocalModel(write_shards(tmp_path / "large", 1_000_000)))
    assert present(root, those) == [False, True]


def test_a_share_of_the_disk_of_a_node_stays_free(
    root: Path, model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(root)._replace(total=1_000_000, free=205_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    volume = CacheVolume.open(root, free_share=0.2)
    with pytest.raises(CacheError):
        ModelCache(volume).provide(model, model.weights)
    provide(root, model)


def test_the_space_of_a_download_of_another_pod_is_reserved(root: Path, tmp_path: Path) -> None:
    first = GatedModel(write_shards(tmp_path / "first", 100_000))
    volume = CacheVolume.open(root, 2_000_000)
    thread = threading.Thread(target=lambda: provide(root, first))
    thread.start()
    wait_for(lambda: len(first.fetched_names()) == 2)
    wait_for((entry_of(root, first).folder / SHARDS[0]).exists)
    make_room(volume, 1_100_000, "0" * 64)
    with pytest.raises(CacheError):
        make_room(volume, 1_300_000, "0" * 64)
    open_gate(first.source)
    thread.join(30)
    make_room(volume, 1_300_000, "0" * 64)
    assert not entry_of(root, first).folder.exists()


def test_a_disk_that_fills_up_during_the_download_is_reported(
    root: Path, model: LocalModel
) -> None:
    class Full(LocalModel):
        def fetch(self, names: Any, folder: Path, progress: Any = None) -> Path:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CacheError, match="No space left on device"):
        provide(root, Full(model.source))


# --- a cache that cannot be written ---


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """With the permissions of a user, if the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that every user can read."""
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_without_permission_is_reported(shared: Path) -> None:
    shared.chmod(0o555)
    with as_user(65532), pytest.raises(CacheError, match=r"user \d+ cannot write to .*Permission"):
        CacheVolume.open(shared)


def test_a_prepared_model_in_a_folder_without_permission_is_used(
    shared: Path, model: LocalModel, tmp_path: Path
) -> None:
    """An administrator filled the cache; this pod can only read it."""
    folder = provide(shared, model)
    (other,) = models(tmp_path, 1)
    for path in (shared, *shared.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with as_user(65532):
        volume = CacheVolume.open(shared)
        assert not volume.is_writable
        cache = ModelCache(volume)
        assert cache.provide(model, model.weights) == folder
        with pytest.raises(CacheError, match="does not contain the base model"):
            cache.provide(other, other.weights)
        cache.close()
    (folder / MARKER).unlink()
    with as_user(65532):
        assert ModelCache(volume).provide(model, model.weights) == folder
    assert model.fetched_names() == sorted(SHARDS)


def test_a_missing_folder_and_a_file_are_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(CacheError, match=name):
            CacheVolume.open(tmp_path / name)


def test_a_volume_without_locks_is_reported(
    root: Path, model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(CacheError, match="does not support file locks"):
        provide(root, model)


# --- files of other tenants ---


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that a link in the cache must not reach."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in (*SHARDS, MARKER, "incoming-0"):
        (folder / name).write_bytes(b"precious")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_entry_that_is_a_link_is_replaced(root: Path, model: LocalModel, outside: Path) -> None:
    entry = entry_of(root, model)
    entry.folder.symlink_to(outside)
    before = contents(outside)
    assert is_whole(provide(root, model), model)
    assert not entry.folder.is_symlink()
    assert contents(outside) == before


def test_eviction_removes_links_and_not_what_is_behind_them(
    root: Path, tmp_path: Path, outside: Path
) -> None:
    before = contents(outside)
    volume = CacheVolume.open(root)
    volume.entry("a" * 64).symlink_to(outside)
    volume.entry("b" * 64).mkdir()
    (volume.entry("b" * 64) / "deep").symlink_to(outside)
    (volume.entry("b" * 64) / "incoming-1").symlink_to(outside)
    volume.entry("not-a-key").symlink_to(outside)
    (model,) = models(tmp_path, 1)
    provide(root, model, max_bytes=401_000)
    make_room(replace(volume, max_bytes=1), 1, "0" * 64)
    assert volume.entry_keys() == []
    assert contents(outside) == before
    assert volume.entry("not-a-key").is_symlink()


def test_leftovers_that_are_links_are_removed_alone(
    root: Path, model: LocalModel, outside: Path
) -> None:
    before = contents(outside)
    entry = entry_of(root, model)
    entry.folder.mkdir()
    for name in ("incoming-0", EXPECTED, MARKER, *SHARDS):
        (entry.folder / name).symlink_to(outside / "incoming-0")
    (entry.folder / "incoming-1").symlink_to(outside)
    assert is_whole(provide(root, model), model)
    assert contents(outside) == before
    assert {path.name for path in entry.folder.iterdir()} == {*SHARDS, MARKER}


@pytest.mark.parametrize("folder", ["v1", "v1/entries", "v1/locks"])
def test_a_layout_of_links_is_refused(root: Path, outside: Path, folder: str) -> None:
    before = contents(outside)
    (root / folder).parent.mkdir(exist_ok=True)
    (root / folder).symlink_to(outside)
    with pytest.raises(CacheError, match="is a link"):
        CacheVolume.open(root)
    assert contents(outside) == before


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_lock_that_is_no_file_is_an_error_and_never_blocks(
    root: Path, model: LocalModel, outside: Path, kind: str
) -> None:
    path = CacheVolume.open(root).root / "v1/locks" / f"{entry_of(root, model).key}.use"
    if kind == "link":
        path.symlink_to(outside / SHARDS[0])
        with pytest.raises(CacheError):
            provide(root, model)
        assert (outside / SHARDS[0]).read_bytes() == b"precious"
    else:
        os.mkfifo(path)
        for is_writable in (True, False):
            volume = replace(CacheVolume.open(root), is_writable=is_writable)
            with pytest.raises(CacheError, match="is not a file"):
                ModelCache(volume).provide(model, model.weights)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_not_used(root: Path, model: LocalModel) -> None:
    folder = provide(root, model)
    os.chown(folder / SHARDS[1], 4242, 4242)
    provide(root, model)
    assert (folder / SHARDS[1]).stat().st_uid == os.geteuid()
    os.chown(folder, 4242, 4242)
    provide(root, model)
    assert folder.stat().st_uid == os.geteuid()
    assert model.fetched_names() == sorted([*SHARDS, SHARDS[1], *SHARDS])
    os.chown(root / "v1", 4242, 4242)
    with pytest.raises(CacheError, match="belongs to another user"):
        provide(root, model)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_the_owner_of_the_folder_are_used(root: Path, model: LocalModel) -> None:
    """Pods of one runtime may run as root, and those of another one as user 65532."""
    folder = provide(root, model)
    for path in (root, *root.rglob("*")):
        os.chown(path, 65532, 65532)
    assert provide(root, model) == folder
    assert model.fetched_names() == sorted(SHARDS)


def test_a_network_file_system_that_maps_users_is_accepted(
    root: Path, model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New files belong to nobody, and so does everything that other pods wrote."""
    monkeypatch.setattr(volumes, "_owner_of_new_files", lambda folder: 65534)
    assert 65534 in CacheVolume.open(root).owners


def test_sizes_of_hostile_reservations_are_bounded(root: Path, model: LocalModel) -> None:
    volume = CacheVolume.open(root)
    key = "c" * 64
    volume.entry(key).mkdir()
    lock = volume.lock(f"{key}.download")
    assert lock is not None
    with lock:
        assert lock.try_exclusive()
        for text in ("-5", "x", "", "1"):
            (volume.entry(key) / EXPECTED).write_text(text)
            make_room(volume, 1, "0" * 64)
        (volume.entry(key) / EXPECTED).write_text("9" * 5000)
        with pytest.raises(CacheError):
            make_room(volume, 1, "0" * 64)


def test_allocated_bytes_follows_no_link(tmp_path: Path, outside: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "self").symlink_to(folder)
    (folder / "file").write_bytes(bytes(10_000))
    assert 10_000 <= allocated_bytes(folder) <= 20_000
    (tmp_path / "link").symlink_to(folder)
    assert allocated_bytes(tmp_path / "link") == 0
    assert allocated_bytes(tmp_path / "missing") == 0
