"""JSON patch, merge patch and strategic merge patch."""

from typing import Any

import pytest

from alidade_local.apiserver.builtin_schemas import builtin_schema
from alidade_local.apiserver.strategic import strategic_merge
from tests.local.apiserver.conftest import (
    CONFIG_MAPS,
    DEFINITIONS,
    WIDGETS,
    Api,
    Refused,
    config_map,
    definition,
    widget,
)

Json = dict[str, Any]
A = f"{CONFIG_MAPS}/a"


async def test_a_json_patch_applies_all_its_operations_or_none(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a", x="1"))
    good = [{"op": "test", "path": "/data/x", "value": "1"}, {"op": "add", "path": "/data/y~1z", "value": "2"}]
    with pytest.raises(Refused) as refused:
        await api.json_patch(A, good)
    assert refused.value.code == 422, "y/z is no key of a ConfigMap"
    good[1]["path"] = "/data/y"
    assert (await api.json_patch(A, good))["data"] == {"x": "1", "y": "2"}
    with pytest.raises(Refused) as refused:
        await api.json_patch(A, [{"op": "remove", "path": "/data/y"}, {"op": "test", "path": "/data/x", "value": "9"}])
    assert refused.value.code == 422
    assert (await api.get(A))["data"] == {"x": "1", "y": "2"}


@pytest.mark.parametrize("patch", [{}, [{"op": "jump", "path": "/x"}], [{"path": "/x"}], [7]])
async def test_what_is_no_json_patch_is_refused(api: Api, patch: Any) -> None:
    await api.post(CONFIG_MAPS, config_map("a"))
    with pytest.raises(Refused) as refused:
        await api.json_patch(A, patch)
    assert refused.value.code in (400, 422)


async def test_a_merge_patch_removes_with_null(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a", x="1", y="2"))
    assert (await api.merge(A, {"data": {"x": None, "z": "3"}}))["data"] == {"y": "2", "z": "3"}


async def test_a_patch_with_a_stale_version_is_a_conflict(api: Api) -> None:
    old = await api.post(CONFIG_MAPS, config_map("a"))
    await api.merge(A, {"data": {"x": "1"}})
    with pytest.raises(Refused) as refused:
        await api.merge(A, {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"x": "2"}})
    assert refused.value.code == 409


async def test_custom_resources_take_no_strategic_patch(api: Api) -> None:
    await api.post(DEFINITIONS, definition({"type": "object"}))
    await api.post(WIDGETS, widget("w"))
    with pytest.raises(Refused) as refused:
        await api.strategic(f"{WIDGETS}/w", {})
    assert refused.value.code == 415
    assert "application/merge-patch+json, application/apply-patch+yaml" in refused.value.message


POD = builtin_schema("", "v1", "Pod")


@pytest.mark.parametrize(
    ("value", "patch", "result"),
    [
        (
            {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]},
            {"containers": [{"name": "a", "image": "2"}, {"name": "c"}]},
            {"containers": [{"name": "a", "image": "2"}, {"name": "c"}, {"name": "b"}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [{"name": "b"}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"$patch": "replace"}, {"name": "c"}]},
            {"containers": [{"name": "c"}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
            {"containers": [{"name": "b"}, {"name": "a"}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({"nodeSelector": {"a": "1"}}, {"nodeSelector": {"b": "2", "a": None}}, {"nodeSelector": {"b": "2"}}),
        (
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]},
            {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]},
        ),
        (
            {"securityContext": {"runAsUser": 1}},
            {"securityContext": {"$patch": "replace", "fsGroup": 2}},
            {"securityContext": {"fsGroup": 2}},
        ),
    ],
)
def test_a_strategic_patch_merges_as_the_schema_says(value: Json, patch: Json, result: Json) -> None:
    assert strategic_merge({"spec": value}, {"spec": patch}, POD) == {"spec": result}


def test_scalars_of_a_merging_list_are_added_and_removed() -> None:
    value = {"metadata": {"finalizers": ["a", "b"]}}
    assert strategic_merge(value, {"metadata": {"finalizers": ["b", "c"]}}, POD) == {
        "metadata": {"finalizers": ["a", "b", "c"]}
    }
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert strategic_merge(value, patch, POD) == {"metadata": {"finalizers": ["b", "c"]}}
