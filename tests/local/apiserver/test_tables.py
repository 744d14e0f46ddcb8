"""Tables and JSONPath: what `kubectl get` shows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.json_path import JsonPathError, compile_path
from alidade_local.apiserver.pod_columns import pod_status
from tests.local.apiserver.conftest import (
    CONFIG_MAPS,
    DEFINITIONS,
    PODS,
    WIDGETS,
    Api,
    config_map,
    definition,
    pod,
    widget,
)

Json = dict[str, Any]
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}

OBJ: Json = {
    "metadata": {"labels": {"a.b/c": "x", "plain": "y"}},
    "spec": {"items": [{"n": 1, "name": "one"}, {"n": 2, "name": "two"}], "flag": True},
    "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Succeeded", "status": "True"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.items[0].name", ["one"]),
        (".spec.items[-1].name", ["two"]),
        (".spec.items[*].n", [1, 2]),
        (".spec.items[0:1].n", [1]),
        (".spec.items[5].n", []),
        ('.status.conditions[?(@.type=="Succeeded")].status', ["True"]),
        (".status.conditions[?(@.type=='Nothing')].status", []),
        (".spec.items[?(@.n>1)].name", ["two"]),
        (".spec.items[?(@.n<=1)].name", ["one"]),
        (".spec.items[?(@.name!='one')].n", [2]),
        (".spec.items[?(@.missing)].n", []),
        (r".metadata.labels.a\.b/c", ["x"]),
        (".metadata.labels['a.b/c']", ["x"]),
        ("{.spec.flag}", [True]),
        ("$.spec.flag", [True]),
        ("..name", ["one", "two"]),
        (".spec.*", [[{"n": 1, "name": "one"}, {"n": 2, "name": "two"}], True]),
        (".nothing.at.all", []),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    assert compile_path(path)(OBJ) == found


@pytest.mark.parametrize("path", [".a[", ".a[x]", ".a[?(@.b==c)]", ".a[?x]", ".a]"])
def test_a_bad_json_path_is_refused(path: str) -> None:
    with pytest.raises(JsonPathError):
        compile_path(path)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 300, "7h5m"),
        (8 * 3600 + 300, "8h"),
        (47 * 3600, "47h"),
        (2 * 86400, "2d"),
        (2 * 86400 + 4 * 3600, "2d4h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (2 * 365 * 86400 + 86400, "2y1d"),
        (9 * 365 * 86400, "9y"),
        (-5, "<invalid>"),
    ],
)
def test_durations_are_shown_as_kubectl_shows_them(seconds: int, shown: str) -> None:
    assert timestamps.duration(seconds) == shown


async def test_columns_of_a_custom_resource_come_from_its_definition(api: Api) -> None:
    columns = [
        {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
        {"name": "Done", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Done")].status', "priority": 1},
        {"name": "Since", "type": "date", "jsonPath": ".status.since"},
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Parts", "type": "string", "jsonPath": ".spec.parts"},
    ]
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await api.post(DEFINITIONS, definition(free, additionalPrinterColumns=columns))
    await api.post(WIDGETS, widget("a", color="red", size=3, parts=[1, 2]))
    since = (datetime.now(UTC) - timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"since": since, "conditions": [{"type": "Done", "status": "True"}]}
    await api.merge(f"{WIDGETS}/a/status", {"status": status})
    table = await api.get(WIDGETS, headers=TABLE)
    assert [column["name"] for column in table["columnDefinitions"]] == [
        "Name",
        "Color",
        "Done",
        "Since",
        "Size",
        "Parts",
    ]
    assert [column["priority"] for column in table["columnDefinitions"]] == [0, 0, 1, 0, 0, 0]
    assert table["rows"][0]["cells"] == ["a", "red", "True", "30m", 3, "[1,2]"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    await api.post(WIDGETS, widget("b"))
    table = await api.get(WIDGETS, headers=TABLE)
    assert table["rows"][1]["cells"] == ["b", None, None, None, None, None]


async def test_a_table_may_carry_whole_objects_or_none(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a", x="1"))
    whole = await api.get(f"{CONFIG_MAPS}?includeObject=Object", headers=TABLE)
    assert whole["rows"][0]["object"]["data"] == {"x": "1"}
    none = await api.get(f"{CONFIG_MAPS}/a?includeObject=None", headers=TABLE)
    assert none["rows"][0]["object"] is None
    assert none["rows"][0]["cells"][:2] == ["a", 1]


async def test_metadata_can_be_had_alone(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a", x="1"))
    accept = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    listed = await api.get(CONFIG_MAPS, headers=accept)
    assert listed["kind"] == "PartialObjectMetadataList"
    assert set(listed["items"][0]) == {"kind", "apiVersion", "metadata"}


async def test_pods_show_ready_containers_status_and_restarts(api: Api) -> None:
    await api.post(PODS, pod("p"))
    ended = (datetime.now(UTC) - timedelta(minutes=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    statuses = [
        {
            "name": "main",
            "ready": True,
            "restartCount": 2,
            "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": ended, "exitCode": 1}},
        }
    ]
    await api.merge(
        f"{PODS}/p/status", {"status": {"phase": "Running", "podIP": "127.1.2.3", "containerStatuses": statuses}}
    )
    (row,) = (await api.get(PODS, headers=TABLE))["rows"]
    assert row["cells"][:4] == ["p", "1/1", "Running", "2 (3m ago)"]
    assert row["cells"][5:] == ["127.1.2.3", "<none>", "<none>", "<none>"]


def status_of(phase: str, *containers: Json, deleted: bool = False, init: list[Json] | None = None) -> str:
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    states = [{"name": f"c{index}", **state} for index, state in enumerate(containers)]
    inits = [{"name": f"i{index}", "state": state} for index, state in enumerate(init or [])]
    return pod_status(
        {
            "metadata": metadata,
            "spec": {"containers": states, "initContainers": inits},
            "status": {"phase": phase, "containerStatuses": states, "initContainerStatuses": inits},
        }
    )


def test_one_word_says_how_a_pod_is() -> None:
    running = {"ready": True, "state": {"running": {}}}
    assert status_of("Pending") == "Pending"
    assert status_of("Running", running) == "Running"
    assert status_of("Running", running, deleted=True) == "Terminating"
    assert status_of("Pending", {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}) == "CrashLoopBackOff"
    assert status_of("Succeeded", {"state": {"terminated": {"reason": "Completed"}}}) == "Completed"
    assert status_of("Failed", {"state": {"terminated": {"exitCode": 3}}}) == "ExitCode:3"
    assert status_of("Failed", {"state": {"terminated": {"signal": 9}}}) == "Signal:9"
    assert status_of("Running", running, {"state": {"terminated": {"reason": "Completed"}}}) == "NotReady"
    assert status_of("Pending", init=[{"running": {}}, {"waiting": {"reason": "PodInitializing"}}]) == "Init:0/2"
    assert status_of("Pending", init=[{"terminated": {"exitCode": 0}}, {"running": {}}]) == "Init:1/2"
    assert status_of("Pending", init=[{"terminated": {"exitCode": 2}}]) == "Init:ExitCode:2"
