"""The API keys that the gateway reads from its mounted Secret."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_api.api_keys import KeyRecord, entry_name, hash_key, new_key
from finetune_gateway.kube.keys import CHECK_SECONDS, KeyRing

NOW = datetime(2026, 11, 30, 4, 40, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def record_of(key: str, account: str = "bert") -> KeyRecord:
    return KeyRecord(sha256=hash_key(key), account=account, created=NOW)


def write(folder: Path, key: str, account: str = "bert") -> Path:
    record = record_of(key, account)
    path = folder / record.entry_name
    path.write_text(record.to_json())
    return path


def mount(folder: Path, name: str, *keys: str) -> None:
    """Replace the content of a mount as the kubelet does."""
    data = folder / name
    data.mkdir()
    for key in keys:
        path = write(data, key)
        link = folder / path.name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / path.name)
    (folder / "..new").symlink_to(name)
    (folder / "..new").rename(folder / "..data")
    for link in folder.iterdir():  # the kubelet removes links without a target
        if not link.exists():
            link.unlink()


def test_a_key_is_found_and_another_key_is_not(tmp_path: Path) -> None:
    key = new_key()
    write(tmp_path, key, "anna")
    ring = KeyRing(tmp_path)
    found = ring.find(key)
    assert found is not None
    assert found.account == "anna"
    assert ring.find(new_key()) is None


def test_a_key_whose_first_digits_match_another_record_is_not_found(tmp_path: Path) -> None:
    key = new_key()
    other = entry_name(hash_key(key)) + "0" * 48  # as if the first 16 digits were all that counts
    record = KeyRecord(sha256=other, account="bert", created=NOW)
    (tmp_path / record.entry_name).write_text(record.to_json())
    ring = KeyRing(tmp_path)
    assert len(ring) == 1
    assert ring.find(key) is None


def test_a_removed_file_revokes_its_key_at_the_next_check(tmp_path: Path) -> None:
    clock, key, kept = Clock(), new_key(), new_key()
    path = write(tmp_path, key)
    write(tmp_path, kept)
    ring = KeyRing(tmp_path, clock)
    assert ring.find(key)
    path.unlink()
    clock.now += CHECK_SECONDS
    assert ring.find(key) is None
    assert ring.find(kept)


def test_the_folder_is_checked_at_most_once_a_second(tmp_path: Path) -> None:
    clock, key = Clock(), new_key()
    path = write(tmp_path, key)
    ring = KeyRing(tmp_path, clock)
    assert ring.find(key)
    path.unlink()
    clock.now += CHECK_SECONDS / 2
    assert ring.find(key)


def test_a_mount_of_the_kubelet_is_read_again_after_each_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, first, second = Clock(), new_key(), new_key()
    mount(tmp_path, "..2026_a", first)
    ring = KeyRing(tmp_path, clock)
    assert ring.find(first)
    assert ring.find(second) is None
    mount(tmp_path, "..2026_b", second)
    clock.now += CHECK_SECONDS
    assert ring.find(first) is None
    assert ring.find(second)
    assert caplog.text == ""  # nothing is ignored


def test_a_folder_that_appears_later_is_read_and_one_that_disappears_has_no_keys(
    tmp_path: Path,
) -> None:
    clock, key, folder = Clock(), new_key(), tmp_path / "keys"
    ring = KeyRing(folder, clock)
    assert ring.find(key) is None
    folder.mkdir()
    path = write(folder, key)
    clock.now += CHECK_SECONDS
    assert ring.find(key)
    path.unlink()
    folder.rmdir()
    clock.now += CHECK_SECONDS
    assert ring.find(key) is None


def test_a_broken_entry_is_logged_once_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, key = Clock(), new_key()
    write(tmp_path, key)
    (tmp_path / "0123456789abcdef").write_text('{"sha256": "SECRET"}')
    os.mkfifo(tmp_path / "aaaaaaaaaaaaaaaa")  # opening it must not wait
    (tmp_path / "bbbbbbbbbbbbbbbb").mkdir()
    ring = KeyRing(tmp_path, clock)
    with caplog.at_level(logging.WARNING):
        for seconds in range(5):
            clock.now = 2.0 * seconds
            (tmp_path / "cccccccccccccccc").write_text(str(seconds))  # a change
            assert ring.find(key)
    ignored = [r.getMessage() for r in caplog.records if "is ignored" in r.getMessage()]
    assert len(ignored) == 4
    assert not any("SECRET" in message for message in ignored)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), name=st.text("0123456789abcdef", min_size=1, max_size=20))
def test_no_content_of_the_folder_stops_the_keys(tmp_path: Path, content: bytes, name: str) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    key = new_key()
    write(folder, key)
    (folder / name).write_bytes(content)
    ring = KeyRing(folder)
    assert ring.find(key)
    assert len(ring) == 1
