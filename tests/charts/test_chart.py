"""The chart as a whole: helm finds nothing wrong, generated files are what the types say, nonsense is refused."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from alidade_operator.config import OperatorConfig
from charts.values import SET_BY_CHART, Values
from tests.charts.rendering import CHART, ROOT, VALUE_SETS, Json, helm, render, the


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charts.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", VALUE_SETS)
def test_helm_lint_finds_nothing(name: str) -> None:
    done = helm("lint", "--strict", str(CHART), values=VALUE_SETS[name])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_has_the_version_of_what_it_installs() -> None:
    project = tomllib.loads((ROOT / "operator" / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == project["version"]


def test_defaults_of_values_yaml_are_those_of_the_types() -> None:
    assert Values.model_validate(yaml.safe_load((CHART / "values.yaml").read_text())) == Values()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"image": {"pullPolicy": "Sometimes"}}, "at '/image/pullPolicy': value must be one of"),
        ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
        ({"watchNamespaces": ["Team A"]}, "at '/watchNamespaces/0': 'Team A' does not match pattern"),
        ({"config": {"trainerimage": "x"}}, "at '/config': additional properties 'trainerimage' not allowed"),
        ({"config": {"workers": 1000}}, "at '/config/workers': maximum: got 1,000, want 64"),
        ({"config": {"nodePools": []}}, "at '/config/nodePools': minItems: got 0, want 1"),
        ({"config": {"nodePools": [{"gpusPerNode": 8}]}}, "at '/config/nodePools/0': missing property 'name'"),
        ({"config": {"leaderElection": False}}, "additional properties 'leaderElection' not allowed"),
        ({"workspace": {"size": "big"}}, "at '/workspace/size': 'big' does not match pattern"),
        (
            {"monitoring": {"rules": {"thresholds": {"servingObjective": 1}}}},
            "at '/monitoring/rules/thresholds/servingObjective': exclusiveMaximum: got 1, want 1",
        ),
        (
            {"config": {"nodePools": [{"name": "a"}, {"name": "a"}]}},
            "config.nodePools: a is there twice; give every pool its own name.",
        ),
        (
            {"config": {"metricsPort": 0}},
            "config.metricsPort is 0; probes and Prometheus need a port that does not change and that a user without "
            "rights may open: 1024 or higher.",
        ),
        (
            {"webhook": {"enabled": True, "port": 9090}},
            "webhook.port and config.metricsPort are both 9090; give them different ports.",
        ),
        (
            {"serviceAccount": {"create": False}},
            "serviceAccount.create is false and serviceAccount.name is empty; name the account that the operator is "
            "to use.",
        ),
        (
            {"env": [{"name": "ALIDADE_CONFIG", "value": "x"}]},
            "env sets ALIDADE_CONFIG, which the chart sets; write the operator's configuration under config.",
        ),
        ({"watchNamespaces": ["a", "a"]}, "watchNamespaces names a namespace twice."),
        (
            {"watchNamespaces": ["a"], "workspace": {"namespaces": ["b"]}},
            "workspace.namespaces has b, which is not among watchNamespaces: nothing would use the claim.",
        ),
        (
            {"monitoring": {"enabled": True, "rules": {"disabled": ["AlidadeNoise"]}}},
            "monitoring.rules.disabled has AlidadeNoise; there is no alert of that name. There are: ",
        ),
    ],
)
def test_nonsense_is_refused_by_its_name(values: Json, words: str) -> None:
    done = helm("template", "alidade", str(CHART), values=values)
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_operator_reads_the_configuration_that_is_rendered(name: str) -> None:
    """Every field that the values may set, and every one that the chart sets, is one of the operator's."""
    text = the(_config_maps(render(VALUE_SETS[name])), "ConfigMap")["data"]["operator.yaml"]
    config = OperatorConfig.model_validate(yaml.safe_load(text))
    assert config.leader_election
    assert config.leader_namespace == "alidade-system"
    assert config.namespaces == VALUE_SETS[name].get("watchNamespaces", [])


def test_what_the_chart_sets_are_fields_of_the_operator() -> None:
    text = the(_config_maps(render({})), "ConfigMap")["data"]["operator.yaml"]
    rendered = {name for name, field in OperatorConfig.model_fields.items() if field.alias in yaml.safe_load(text)}
    assert rendered == SET_BY_CHART | {"lease_duration_s"}


def test_a_silent_leader_is_replaced_within_15_seconds_unless_the_values_say_otherwise() -> None:
    """Its last sign may have been seen a sixth of the lease late; two seconds are for what is slow."""

    def lease_s(values: Json) -> float:
        text = the(_config_maps(render(values)), "ConfigMap")["data"]["operator.yaml"]
        return OperatorConfig.model_validate(yaml.safe_load(text)).lease_duration_s

    assert lease_s({}) * (1 + 1 / 6) <= 13
    assert lease_s({"config": {"leaseDurationS": 60}}) == 60


def test_prices_and_pools_reach_the_operator_unchanged() -> None:
    values = VALUE_SETS["all on"]
    text = the(_config_maps(render(values)), "ConfigMap")["data"]["operator.yaml"]
    assert yaml.safe_load(text)["nodePools"] == values["config"]["nodePools"]


def test_values_that_a_chart_around_this_one_shares_are_let_through() -> None:
    render({"global": {"imageRegistry": "example.com"}})


def _config_maps(objects: list[Json]) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == "ConfigMap" and "operator.yaml" in one["data"]]
