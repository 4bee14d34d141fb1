"""`helm upgrade --reuse-values` from every earlier chart.

Helm then renders the new templates with the complete values of the installed chart, so everything
that is newer is missing, and the values of the user may name what is older.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from finetune_api.wire import JsonObject
from finetune_operator.settings import Settings
from tests.chart import older_values
from tests.chart.conftest import CHART, Helm, Render, conform, of_kind, settings
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.integration
NUMBERS = range(len(older_values.recorded()))
KINDS = {"defaults": dict, "everything": older_values.everything}


def chart_with(values: JsonObject, folder: Path) -> Path:
    """The chart with other defaults, which is what --reuse-values makes of it."""
    made = folder / "chart"
    shutil.copytree(CHART, made)
    (made / "values.yaml").write_text(yaml.safe_dump(values))
    return made


@pytest.fixture(scope="module")
def rendered(
    render: Render, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[int, str], list[JsonObject]]:
    """The objects of each earlier chart, with its defaults and with everything switched on."""
    return {
        (number, kind): render(chart=chart_with(make(values), tmp_path_factory.mktemp("older")))
        for number, values in enumerate(older_values.recorded())
        for kind, make in KINDS.items()
    }


@pytest.mark.parametrize("number", NUMBERS)
def test_the_operator_parses_the_settings_of_each_earlier_chart(
    rendered: dict[tuple[int, str], list[JsonObject]], number: int
) -> None:
    values = older_values.recorded()[number]
    for kind, make in KINDS.items():
        found = Settings.model_validate(settings(rendered[number, kind]))
        assert [model.name for model in found.models] == [it["name"] for it in values["models"]]
        assert found.output == make(values)["output"]


def test_the_objects_of_all_earlier_charts_are_valid_kubernetes(
    rendered: dict[tuple[int, str], list[JsonObject]], schemas: str, tmp_path: Path
) -> None:
    """kubeconform reads all of them at once, because it takes long to read its schemas."""
    for (number, kind), objects in rendered.items():
        (tmp_path / f"{number}-{kind}.yaml").write_text(yaml.safe_dump_all(objects))
    done = conform(schemas, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(map(len, rendered.values()))} resources found" in done.stdout
    assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


def test_what_is_missing_has_the_defaults_of_the_new_chart(render: Render, tmp_path: Path) -> None:
    """Objects are equal to those of the same values, written into the new chart."""
    oldest = older_values.recorded()[0]
    new = render(*(f"{key}={json.dumps(value)}" for key, value in oldest.items()))
    assert render(chart=chart_with(oldest, tmp_path)) == new


def test_what_a_user_has_switched_off_or_emptied_stays_so(render: Render, tmp_path: Path) -> None:
    values = older_values.current()
    values["rbac"]["userRoles"]["create"] = False
    values["baseCheck"]["enabled"] = False
    values["pods"]["estimatedRequests"] = []
    values["operator"]["resources"] = {}
    objects = render(chart=chart_with(values, tmp_path))
    assert not [it for it in of_kind(objects, "Role") if "finetune-user" in it["metadata"]["name"]]
    assert settings(objects)["baseCheck"]["enabled"] is False
    assert settings(objects)["estimatedRequests"] == []
    (deployment,) = of_kind(objects, "Deployment")
    assert "resources" not in deployment["spec"]["template"]["spec"]["containers"][0]


def test_no_values_at_all_are_the_defaults(render: Render, tmp_path: Path) -> None:
    assert render(chart=chart_with({}, tmp_path)) == render()


def test_the_record_has_every_values_file_of_the_history() -> None:
    missing = [it for it in older_values.history() if it not in older_values.recorded()]
    assert not missing, "run `python -m tests.chart.older_values`"


def test_each_template_completes_the_values_first() -> None:
    first = '{{- include "finetune-operator.complete" . }}\n'
    for path in (CHART / "templates").iterdir():
        assert path.suffix == ".tpl" or path.read_text().startswith(first), path.name


def test_helm_upgrades_a_release_with_the_oldest_values(
    helm: Helm, admin: Kubectl, team: Kubectl, tmp_path: Path
) -> None:
    """A real release: Helm keeps the values of the user and of the installed chart."""
    old = chart_with(older_values.recorded()[0], tmp_path)
    place = ("-n", team.namespace, "--kubeconfig", team.kubeconfig)
    mine = ("--set", "output=s3://mine/results", "--set", "crds.install=false")
    installed = helm("install", "ft", old, *place, *mine)
    assert installed.returncode == 0, installed.stderr
    upgraded = helm("upgrade", "ft", CHART, *place, "--reuse-values")
    assert upgraded.returncode == 0, upgraded.stderr
    config = team.get("configmap", "ft-finetune-operator-settings")
    found = Settings.model_validate(yaml.safe_load(config["data"]["settings.yaml"]))
    assert found.output == "s3://mine/results"
