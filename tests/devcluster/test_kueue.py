"""The manifests of Kueue and the patches for this node."""

import json

import pytest

from devcluster import gotools, kueue, paths


def test_only_the_image_and_the_node_s_own_matters_are_patched() -> None:
    text = kueue.kustomization("localhost/some/kueue:0123", "../config/default")
    overlay = json.loads(text)
    assert overlay["resources"] == ["../config/default"]
    [image] = overlay["images"]
    assert (image["newName"], image["newTag"]) == ("localhost/some/kueue", "0123")
    [patch] = overlay["patches"]
    assert patch["target"] == {"kind": "Deployment"}
    changed = [operation["path"].rsplit("/", 1)[1] for operation in json.loads(patch["patch"])]
    assert changed == [
        "command",
        "imagePullPolicy",
        "resources",
        "initialDelaySeconds",
        "periodSeconds",
    ]


def test_another_build_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kueue.image()
    assert before.startswith(f"localhost/{paths.NAME}/kueue:")
    assert gotools.binary("kueue").parent.name.endswith(before.rsplit(":", 1)[1])
    monkeypatch.setattr(gotools, "cache_key", lambda tool, folder: "fedcba987654")
    assert kueue.image() == f"localhost/{paths.NAME}/kueue:fedcba987654"


def test_another_cluster_is_not_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from devcluster import __main__

    monkeypatch.setenv("KUBECONFIG", "/another/cluster")
    monkeypatch.setattr("sys.argv", ["devcluster", "kueue"])
    assert __main__.main() == 1
    assert "another cluster" in capsys.readouterr().err
