"""What `finetune keys` accepts, and how it shows keys: without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.api_keys import KeyRecord, hash_key, new_key
from finetune_api.text.sanitizing import is_deceptive
from finetune_cli.commands.keys.create import LONGEST_DAYS
from finetune_cli.commands.keys.key_secret import KeyEntry
from finetune_cli.commands.keys.listing import row, to_object
from tests.cli.conftest import Run
from tests.cli.hostile import HOSTILE
from tests.cli.test_command_line import DEAD

NOW = datetime(2026, 11, 30, 4, 40, tzinfo=UTC)
CREATE = ("--kubeconfig", "dead", "keys", "create")
UNREACHABLE = "https://127.0.0.1:1: connection refused"


@pytest.fixture
def dead(home: Path) -> None:
    """A kubeconfig of an API server that does not answer: what reaches it was accepted."""
    (home / "dead").write_text(DEAD)


@pytest.mark.usefixtures("dead")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--for'"),
        (("--for", ""), "'' is not the name of a ServiceAccount"),
        (("--for", "Bert"), "'Bert' is not the name of a ServiceAccount"),
        (("--for", "ml/bert"), "is not the name of a ServiceAccount"),
        (("--for", "../secrets"), "is not the name of a ServiceAccount"),
        (("--for", "bert\n"), "is not the name of a ServiceAccount"),
        (("--for", "b" * 254), "is not the name of a ServiceAccount"),
        (("--for", "system:serviceaccount:ml:bert"), "is not the name of a ServiceAccount"),
        (("--for", "bert", "--expires", "90"), "'90' must be a number with a unit: m, h, d, or w"),
        (("--for", "bert", "--expires", "0d"), "'0d' must be a number with a unit"),
        (("--for", "bert", "--expires", "-1d"), "'-1d' must be a number with a unit"),
        (("--for", "bert", "--expires", "1.5d"), "must be a number with a unit"),
        (("--for", "bert", "--expires", "٣d"), "must be a number with a unit"),
        (("--for", "bert", "--expires", "3651d"), "3651d is longer than 3650 days"),
        (("--for", "bert", "--expires", "9999999w"), "9999999w is longer than 3650 days"),
        (("--for", "bert", "--note", "n" * 201), "it has 201 characters"),
        (("--for", "bert", "--note", "\udcff"), "it is not valid UTF-8"),
    ],
)
def test_a_wrong_argument_is_refused_before_any_request(
    run: Run, arguments: tuple[str, ...], words: str
) -> None:
    ran = run(*CREATE, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert words in ran.stderr


@pytest.mark.usefixtures("dead")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--for", "bert"),
        ("--for", "team.bert-2", "--expires", "90d", "--note", "n" * 200),
        ("--for", "b" * 63, "--expires", f"{LONGEST_DAYS}d"),
        ("--for", "0", "--expires", "12h", "--secret", "other"),
    ],
)
def test_without_an_answer_no_key_is_printed(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*CREATE, *arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert UNREACHABLE in ran.stderr


@pytest.mark.usefixtures("dead")
@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        ((), "", 2, "Missing argument 'ID...'"),
        (("-",), "", 2, "stdin is empty"),
        (("-",), "  \nsecond line\n", 2, "stdin is empty"),
        (("-",), f"sk-ft-{'a' * 42}\n", 2, "begins with sk-ft- is not a whole key"),
        ((f"sk-ft-{'a' * 44}",), "", 2, "begins with sk-ft- is not a whole key"),
        (("-",), "0123456789abcdef", 1, UNREACHABLE),
        (("0123456789abcdef",), "", 1, UNREACHABLE),
    ],
)
def test_revoking_needs_an_id_or_a_key(
    run: Run, arguments: tuple[str, ...], stdin: str, code: int, words: str
) -> None:
    ran = run("--kubeconfig", "dead", "keys", "revoke", *arguments, stdin=stdin)
    assert ran.returncode == code
    assert words in ran.stderr
    assert "aaaa" not in ran.stderr


def a_record(**changes: object) -> KeyRecord:
    fields = {"sha256": hash_key(new_key()), "account": "bert", "created": NOW, **changes}
    return KeyRecord.model_validate(fields)


def entry(record: KeyRecord) -> KeyEntry:
    return KeyEntry(record.entry_name, record)


def test_a_key_is_shown_with_its_account_its_times_and_its_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = a_record(expires=NOW + timedelta(days=90), note="laptop")
    key_id, account, _, expires, note = row(entry(record), NOW)
    assert (key_id, account, note) == (record.sha256[:16], "bert", "laptop")
    assert "expired" not in expires
    assert row(entry(record), NOW + timedelta(days=90))[3] == f"{expires} (expired)"
    assert row(entry(a_record()), NOW)[3:] == ("never", "")
    assert to_object(entry(record), NOW) == {
        "id": record.sha256[:16],
        "account": "bert",
        "created": "2026-11-30T04:40:00Z",
        "expires": "2027-02-28T04:40:00Z",
        "note": "laptop",
        "expired": False,
    }


@given(st.text(max_size=200), st.booleans())
def test_no_hash_is_shown(note: str, expires: bool) -> None:
    record = a_record(note=note, expires=NOW if expires else None)
    shown = f"{row(entry(record), NOW)} {to_object(entry(record), NOW)}"
    assert record.sha256[:16] in shown
    assert record.sha256[:17] not in shown.replace(note, "")


def test_an_entry_that_the_gateway_ignores_is_shown_with_its_problem() -> None:
    broken = KeyEntry("0123456789abcdef", None, "not base64")
    assert row(broken, NOW) == ("0123456789abcdef", "", "", "", "unreadable: not base64")
    assert to_object(broken, NOW) == {"id": "0123456789abcdef", "problem": "not base64"}


def test_the_hostile_note_of_the_other_tests_is_one_that_a_record_can_have() -> None:
    note = HOSTILE[:200]
    assert any(is_deceptive(char) for char in note)
    assert row(entry(a_record(note=note)), NOW)[4] == note
