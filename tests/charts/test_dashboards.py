"""Dashboards: what they read exists, panels do not overlap, and Grafana's sidecar finds them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.charts.promql import exists, metrics_of
from tests.charts.rendering import CHART, Json, of_kind, render

NAMES = ("fleet", "operator", "run", "serving")


def dashboards() -> dict[str, Json]:
    """Every dashboard as it is rendered."""
    found = {}
    for one in of_kind(render({"monitoring": {"enabled": True}}), "ConfigMap"):
        for file, text in one["data"].items():
            if file.endswith(".json"):
                found[file.removeprefix("alidade-").removesuffix(".json")] = json.loads(text)
    return found


def panels(dashboard: Json) -> list[Json]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: Json) -> Iterator[str]:
    """Every query of the panels and of the choices at the top."""
    for panel in panels(dashboard):
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"].removeprefix("label_values(").rpartition(",")[0]


def recorded() -> set[str]:
    groups = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def test_there_are_four() -> None:
    assert set(dashboards()) == set(NAMES)
    assert len({one["uid"] for one in dashboards().values()}) == 4


@pytest.mark.parametrize("name", NAMES)
def test_they_read_metrics_that_exist(name: str) -> None:
    known = recorded()
    read = {metric for expr in expressions(dashboards()[name]) for metric in metrics_of(expr)}
    assert {metric for metric in read - known if not exists(metric)} == set()
    assert len(read) >= 8, "the names are found at all"


def test_between_them_they_show_nearly_every_metric() -> None:
    """A metric that nobody can see is one that nobody misses; what is left out is said here."""
    from tests.charts.promql import HISTOGRAM_PARTS, KNOWN

    read = {metric for one in dashboards().values() for expr in expressions(one) for metric in metrics_of(expr)}
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    read |= {metric for group in rules for rule in group["rules"] for metric in metrics_of(rule["expr"])}
    shown = {name for name in KNOWN if {name, *(name + part for part in HISTOGRAM_PARTS)} & read}
    assert set(KNOWN) - shown == {
        # The operator's mirror of the job's own, or the job's own of the operator's.
        "alidade_job_eval_loss",
        "alidade_job_learning_rate",
        "alidade_trainer_total_steps",
        "alidade_trainer_epoch",
        "alidade_trainer_tokens_total",
        "alidade_trainer_alignment",
        "alidade_trainer_alignment_iteration",
        "alidade_evaluation_failures_total",
        # Parts of a duration that is shown as a whole.
        "tgi_request_queue_duration",
        "tgi_request_inference_duration",
        "tgi_request_validation_duration",
        "tgi_request_max_new_tokens",
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_data_source_is_chosen_on_the_page(name: str) -> None:
    dashboard = dashboards()[name]
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert dashboard["templating"]["list"][0]["name"] == "datasource"
    for panel in panels(dashboard):
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])


@pytest.mark.parametrize("name", NAMES)
def test_variables_of_expressions_are_on_the_page(name: str) -> None:
    dashboard = dashboards()[name]
    known = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
    used = {word for expr in expressions(dashboard) for word in _variables(expr)}
    assert used <= known
    assert known - {"datasource", "__rate_interval"} <= used


def _variables(expr: str) -> Iterator[str]:
    for part in expr.split("$")[1:]:
        yield "".join(itertools.takewhile(lambda letter: letter.isidentifier() or letter.isdigit(), part))


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_titles_and_units_and_do_not_overlap(name: str) -> None:
    dashboard = dashboards()[name]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["title"]
    for panel in panels(dashboard):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)


def test_grafanas_sidecar_finds_them() -> None:
    settings = {"label": "dashboards", "labelValue": "yes", "folder": "ML", "folderAnnotation": "k8s-sidecar-folder"}
    found = of_kind(render({"monitoring": {"enabled": True, "dashboards": settings}}), "ConfigMap")
    pages = [one for one in found if "-dashboard-" in one["metadata"]["name"]]
    assert len(pages) == 4
    for one in pages:
        assert one["metadata"]["labels"]["dashboards"] == "yes"
        assert one["metadata"]["annotations"] == {"k8s-sidecar-folder": "ML"}
