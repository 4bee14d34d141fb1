"""The manifests of Kueue, its variants, and the patches for this node."""

import json
from pathlib import Path

import pytest

from devcluster import gotools, kueue, paths
from devcluster.kueue import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_only_the_image_and_the_node_s_own_matters_are_patched(name: str) -> None:
    patches = kueue.for_this_node("localhost/some/kueue:0123")
    text = kueue.kustomization(VARIANTS[name], "../config/default", patches)
    overlay = json.loads(text)
    assert overlay["resources"] == ["../config/default"]
    patch = overlay["patches"][-1]
    assert patch["target"] == {"kind": "Deployment"}
    changes = json.loads(patch["patch"])
    assert [operation["path"].rsplit("/", 1)[1] for operation in changes] == [
        "command",
        "image",
        "imagePullPolicy",
        "resources",
        "initialDelaySeconds",
        "periodSeconds",
    ]
    assert changes[1]["value"] == "localhost/some/kueue:0123"


def test_without_v1beta1_is_patched_only_where_it_was_served() -> None:
    patched = {
        name: len(json.loads(kueue.kustomization(variant, "x"))["patches"])
        for name, variant in VARIANTS.items()
    }
    assert patched == {"0.14": 0, "0.19": 0, "0.19-v1beta2-only": 2}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_program_of_a_variant_serves_its_versions(name: str) -> None:
    """The go.mod decides which Kueue is built."""
    tool = VARIANTS[name].tool
    release = name.split("-", maxsplit=1)[0]
    assert f"sigs.k8s.io/kueue v{release}." in (gotools.TOOLS / tool / "go.mod").read_text()
    assert VARIANTS[name].binary.parent.name.startswith(f"{tool}-")


@pytest.mark.parametrize("name", VARIANTS)
def test_another_build_is_another_image(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = kueue.image(VARIANTS[name])
    assert before.startswith(f"localhost/{paths.NAME}/kueue:")
    assert VARIANTS[name].binary.parent.name.endswith(before.rsplit(":", 1)[1])
    monkeypatch.setattr(gotools, "cache_key", lambda tool, folder: "fedcba987654")
    assert kueue.image(VARIANTS[name]) == f"localhost/{paths.NAME}/kueue:fedcba987654"


def test_a_version_is_removed_with_its_own_manifests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, ...]] = []

    def kubectl(*arguments: str, stdin: str = "") -> str:
        calls.append((*arguments, stdin))
        return "namespace/kueue-system" if arguments[0] == "get" else ""

    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(kueue.cluster, "is_running", lambda: True)
    monkeypatch.setattr(kueue, "_kubectl", kubectl)
    monkeypatch.setattr(kueue, "_manifests", lambda variant: f"manifests of {variant.tool}")
    (tmp_path / "kueue").mkdir()
    (tmp_path / "kueue" / "variant").write_text("0.14")
    kueue.remove()
    assert calls[-1][-1] == "manifests of kueue-0.14"
    kueue.remove()
    assert calls[-1][-1] == "manifests of kueue"  # without a note, the usual one


def test_another_cluster_is_not_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from devcluster import __main__

    monkeypatch.setenv("KUBECONFIG", "/another/cluster")
    monkeypatch.setattr("sys.argv", ["devcluster", "kueue"])
    assert __main__.main() == 1
    assert "another cluster" in capsys.readouterr().err
