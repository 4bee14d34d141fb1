"""The conditions under which a tool is built again."""

import dataclasses
from pathlib import Path

import pytest

from devcluster import gotools
from devcluster.gotools import TOOLS, TOOLSET, Tool, cache_key


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "go.mod").write_text("module example\n")
    (tmp_path / "go.sum").write_text("one h1:abc\n")
    (tmp_path / "main.go").write_text("package main\n")
    return tmp_path


EXAMPLE = Tool("example", ("example",))


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go"])
def test_the_cache_key_changes_with_each_committed_file(module: Path, name: str) -> None:
    before = cache_key(EXAMPLE, module)
    (module / name).write_text((module / name).read_text() + "// changed\n")
    assert cache_key(EXAMPLE, module) != before


def test_the_cache_key_changes_with_the_flags(module: Path) -> None:
    stamped = dataclasses.replace(EXAMPLE, link_flags="-X main.version=1")
    assert cache_key(stamped, module) != cache_key(EXAMPLE, module)


def test_the_cache_key_ignores_what_is_not_built(module: Path) -> None:
    before = cache_key(EXAMPLE, module)
    (module / "README.md").write_text("words")
    assert cache_key(EXAMPLE, module) == before


def test_the_cache_key_changes_with_what_is_copied_beside_the_programs(module: Path) -> None:
    with_manifests = dataclasses.replace(EXAMPLE, module_folders=(("example.org/x", "config"),))
    assert cache_key(with_manifests, module) != cache_key(EXAMPLE, module)


def test_what_is_unusual_is_built_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def is_built(tool: Tool) -> bool:
        asked.append(tool.name)
        return True

    monkeypatch.setattr(gotools, "is_built", is_built)
    gotools.build()
    assert "kubernetes" in asked and "kueue" not in asked
    asked.clear()
    gotools.build(["kueue"])
    assert asked == ["kueue"]


def test_a_build_never_changes_the_committed_modules() -> None:
    for tool in TOOLSET:
        command = tool.command("go", Path("out"))
        assert "-mod=readonly" in command
        assert "-trimpath" in command


@pytest.mark.parametrize("tool", TOOLSET, ids=lambda tool: tool.name)
def test_every_tool_has_its_committed_module(tool: Tool) -> None:
    module = (TOOLS / tool.name / "go.mod").read_text()
    assert module.startswith(f"module devcluster/tools/{tool.name}\n")
    if "require" in module:
        assert (TOOLS / tool.name / "go.sum").stat().st_size > 0


def test_no_two_tools_make_a_program_of_the_same_name() -> None:
    names = [name for tool in TOOLSET for name in tool.binaries]
    assert len(names) == len(set(names))


def test_an_unknown_tool_is_refused_by_name() -> None:
    with pytest.raises(gotools.BuildError, match="no such tool: etdc"):
        gotools.build(["etdc"])


def test_programs_that_are_not_built_say_how_to_build_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(gotools.BuildError, match="devcluster build"):
        gotools.cli_folder()
