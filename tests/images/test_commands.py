"""The command line, the registry's address, the host's index settings, progress lines."""

import sys
from pathlib import Path

import pytest

from images.__main__ import parser
from images.build import index_settings
from images.progress import CommandError, run
from images.registry import is_loopback


@pytest.mark.parametrize(
    ("registry", "loopback"),
    [
        ("127.0.0.1:5000", True),
        ("localhost:5000/team", True),
        ("[::1]:5000", True),
        ("127.1.2.3", True),
        ("127.example.com", False),
        ("registry.example.com", False),
        ("registry.example.com:5000/127.0.0.1", False),
    ],
)
def test_plain_http_is_used_only_for_a_registry_on_this_machine(
    registry: str, loopback: bool
) -> None:
    assert is_loopback(registry) is loopback


def test_an_unknown_image_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["build", "--only", "operator,trainor"])
    assert (
        "unknown image 'trainor'. Use one of: operator, gateway, prepare, trainer"
        in capsys.readouterr().err
    )


def test_the_hosts_index_settings_are_shell_lines_that_stay_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://a b/it's")
    monkeypatch.setenv("UV_CACHE_DIR", "/elsewhere")
    with index_settings() as path:
        assert path.startswith("/proc/")
        lines = Path(path).read_text().splitlines()
    assert "export UV_INDEX_URL='https://a b/it'\"'\"'s'" in lines
    assert not any("UV_CACHE_DIR" in line for line in lines)
    assert not Path(path).exists()


def test_a_program_that_fails_shows_its_last_lines() -> None:
    script = "print('first'); print('no space left'); raise SystemExit(3)"
    with pytest.raises(CommandError, match=r"failed with exit code 3(?s:.*)no space left"):
        run("x", [sys.executable, "-c", script])


def test_a_silent_program_still_gives_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("images.progress.HEARTBEAT_SECONDS", 0.2)
    script = "import time; print('compiling', flush=True); print('detail'); time.sleep(1)"
    run("x", [sys.executable, "-c", script], shown=lambda line: line == "compiling")
    assert capsys.readouterr().err.count("after: compiling") >= 2
