"""Server-side apply: who owns what, what conflicts, what goes when it is no longer applied."""

from typing import Any

import pytest

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
W = f"{WIDGETS}/w"

SPEC: Json = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "m": {"type": "integer", "default": 1},
        "plain": {"type": "array", "items": {"type": "string"}},
        "names": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "box": {
            "type": "object",
            "x-kubernetes-map-type": "atomic",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
CONDITIONS: Json = {
    "type": "object",
    "properties": {
        "phase": {"type": "string"},
        "conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status"],
                "properties": {name: {"type": "string"} for name in ("type", "status", "reason")},
            },
        },
    },
}


@pytest.fixture
async def widgets(api: Api) -> Api:
    manifest = definition(SPEC)
    manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"] = CONDITIONS
    await api.post(DEFINITIONS, manifest)
    return api


def fields_of(obj: Json, manager: str) -> Json:
    (entry,) = [item for item in obj["metadata"]["managedFields"] if item["manager"] == manager]
    fields: Json = entry["fieldsV1"]
    return fields


async def test_apply_creates_what_is_absent_and_owns_it(api: Api) -> None:
    made = await api.apply(A, config_map("a", x="1"))
    (entry,) = made["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("tester", "Apply", "v1")
    assert entry["fieldsV1"] == {"f:data": {"f:x": {}}}


async def test_applying_the_same_again_changes_nothing(api: Api) -> None:
    first = await api.apply(A, config_map("a", x="1"))
    assert await api.apply(A, config_map("a", x="1")) == first


async def test_what_is_no_longer_applied_goes(api: Api) -> None:
    await api.apply(A, config_map("a", x="1", y="2"))
    assert (await api.apply(A, config_map("a", x="1")))["data"] == {"x": "1"}


async def test_what_others_own_or_nobody_owns_stays(api: Api) -> None:
    await api.apply(A, config_map("a", x="1"))
    await api.apply(A, config_map("a", y="2"), manager="other")
    await api.merge(A, {"data": {"z": "3"}})
    assert (await api.apply(A, config_map("a")))["data"] == {"y": "2", "z": "3"}


async def test_changing_what_another_owns_is_a_conflict_with_its_cause(api: Api) -> None:
    await api.apply(A, config_map("a", x="1", y="1"), manager="first")
    with pytest.raises(Refused) as refused:
        await api.apply(A, config_map("a", x="2"), manager="second")
    assert (refused.value.code, refused.value.status["reason"]) == (409, "Conflict")
    assert refused.value.message == 'Apply failed with 1 conflict: conflict with "first": .data.x'
    assert refused.value.status["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "first"', "field": ".data.x"}
    ]
    with pytest.raises(Refused) as refused:
        await api.apply(A, config_map("a", x="2", y="2"), manager="second")
    assert refused.value.message == 'Apply failed with 2 conflicts: conflicts with "first":\n- .data.x\n- .data.y'


async def test_force_takes_the_field_over(api: Api) -> None:
    await api.apply(A, config_map("a", x="1", y="1"), manager="first")
    forced = await api.apply(A, config_map("a", x="2"), manager="second", force=True)
    assert fields_of(forced, "first") == {"f:data": {"f:y": {}}}
    assert fields_of(forced, "second") == {"f:data": {"f:x": {}}}
    assert (await api.apply(A, config_map("a"), manager="first"))["data"] == {"x": "2"}


async def test_equal_values_are_owned_together(api: Api) -> None:
    await api.apply(A, config_map("a", x="1"), manager="first")
    await api.apply(A, config_map("a", x="1"), manager="second")
    assert (await api.apply(A, config_map("a"), manager="first"))["data"] == {"x": "1"}
    assert (await api.apply(A, config_map("a"), manager="second")).get("data", {}) == {}


async def test_an_update_takes_over_what_it_changes(api: Api) -> None:
    await api.apply(A, config_map("a", x="1"), manager="first")
    changed = await api.merge(f"{A}?fieldManager=editor", {"data": {"x": "2"}})
    assert fields_of(changed, "editor") == {"f:data": {"f:x": {}}}
    assert [item["manager"] for item in changed["metadata"]["managedFields"]] == ["editor"]
    with pytest.raises(Refused, match=r'conflict with "editor" using v1: \.data\.x'):
        await api.apply(A, config_map("a", x="1"), manager="first")


async def test_lists_merge_as_their_schema_says(widgets: Api) -> None:
    await widgets.apply(W, widget("w", plain=["a"], names=["a"], box={"a": 1}, free={"k": {"x": 1}}), manager="first")
    await widgets.apply(W, widget("w", names=["b"], free={"k": {"y": 2}}), manager="second")
    merged = (await widgets.get(W))["spec"]
    assert (merged["names"], merged["free"]) == (["a", "b"], {"k": {"x": 1, "y": 2}})
    for config, field in ((widget("w", plain=["b"]), ".spec.plain"), (widget("w", box={"b": 1}), ".spec.box")):
        with pytest.raises(Refused) as refused:
            await widgets.apply(W, config, manager="second")
        assert refused.value.status["details"]["causes"][0]["field"] == field
    without = await widgets.apply(W, widget("w", plain=["a"]), manager="first")
    assert without["spec"] == {"plain": ["a"], "names": ["b"], "free": {"k": {"y": 2}}, "m": 1}


async def test_two_managers_keep_their_conditions(widgets: Api) -> None:
    await widgets.apply(W, widget("w", n=1))

    def status(kind: str, value: str) -> Json:
        return {**widget("w"), "spec": {}, "status": {"conditions": [{"type": kind, "status": value}]}}

    await widgets.apply(f"{W}/status", status("Ready", "True"), manager="first")
    both = await widgets.apply(f"{W}/status", status("Synced", "False"), manager="second")
    assert both["status"]["conditions"] == [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}]
    assert (both["metadata"]["generation"], both["spec"]["n"]) == (1, 1)
    assert fields_of(both, "second") == {
        "f:status": {"f:conditions": {'k:{"type":"Synced"}': {".": {}, "f:status": {}, "f:type": {}}}}
    }
    same = await widgets.apply(f"{W}/status", status("Synced", "False"), manager="second")
    assert same["metadata"]["resourceVersion"] == both["metadata"]["resourceVersion"]
    left = await widgets.apply(f"{W}/status", {**status("x", "y"), "status": {}}, manager="first")
    assert left["status"]["conditions"] == [{"type": "Synced", "status": "False"}]
    with pytest.raises(Refused) as refused:
        await widgets.apply(f"{W}/status", status("Synced", "True"), manager="first")
    assert refused.value.message == (
        'Apply failed with 1 conflict: conflict with "second" with subresource "status": '
        '.status.conditions[type="Synced"].status'
    )


async def test_the_status_of_a_missing_object_is_not_applied(widgets: Api) -> None:
    with pytest.raises(Refused) as refused:
        await widgets.apply(f"{W}/status", {**widget("w"), "status": {"phase": "x"}})
    assert refused.value.code == 404


async def test_a_uid_keeps_apply_from_reviving_a_deleted_object(widgets: Api) -> None:
    made = await widgets.apply(W, widget("w", n=1))
    uid = made["metadata"]["uid"]
    config = {**widget("w", n=2), "metadata": {"name": "w", "uid": uid}}
    assert (await widgets.apply(W, config))["spec"]["n"] == 2
    await widgets.delete(W)
    with pytest.raises(Refused) as refused:
        await widgets.apply(W, config)
    assert refused.value.code == 409
    await widgets.apply(W, widget("w", n=3))
    with pytest.raises(Refused) as refused:
        await widgets.apply(W, config)
    assert refused.value.code == 409


async def test_fields_that_the_schema_lacks_are_not_applied(widgets: Api) -> None:
    with pytest.raises(Refused) as refused:
        await widgets.apply(W, widget("w", n=1, junk=2))
    assert refused.value.message == (
        "failed to create typed patch object (/w; test.dev/v1, Kind=Widget): .spec.junk: field not declared in schema"
    )


async def test_items_of_a_map_list_need_their_key(widgets: Api) -> None:
    await widgets.apply(W, widget("w", n=1))
    with pytest.raises(Refused, match=r'omits all key fields \["type"\]'):
        await widgets.apply(f"{W}/status", {**widget("w"), "status": {"conditions": [{"status": "True"}]}})


async def test_defaults_belong_to_nobody(widgets: Api) -> None:
    made = await widgets.apply(W, widget("w", n=1), manager="first")
    assert (made["spec"], fields_of(made, "first")) == ({"n": 1, "m": 1}, {"f:spec": {"f:n": {}}})
    assert (await widgets.apply(W, widget("w", m=5), manager="second"))["spec"] == {"n": 1, "m": 5}
    assert (await widgets.apply(W, widget("w"), manager="second"))["spec"] == {"n": 1, "m": 1}


async def test_containers_of_a_pod_template_are_owned_one_by_one(api: Api) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments/d"

    def deployment(*containers: Json) -> Json:
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "d"},
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}},
            },
        }

    main, side = {"name": "main", "image": "m:1", "ports": [{"containerPort": 80}]}, {"name": "side", "image": "s:1"}
    await api.apply(path, deployment(main, side), manager="first")
    await api.apply(path, deployment({"name": "main", "env": [{"name": "X", "value": "1"}]}), manager="second")
    left = await api.apply(path, deployment(main), manager="first")
    (container,) = left["spec"]["template"]["spec"]["containers"]
    assert (container["env"], container["ports"]) == (
        [{"name": "X", "value": "1"}],
        [{"containerPort": 80, "protocol": "TCP"}],
    )


async def test_apply_needs_a_field_manager(api: Api) -> None:
    with pytest.raises(Refused, match="fieldManager: Required value"):
        await api.call("PATCH", A, config_map("a"), headers={"Content-Type": "application/apply-patch+yaml"})


async def test_managed_fields_cannot_be_applied_but_can_be_reset(api: Api) -> None:
    made = await api.apply(A, config_map("a", x="1"))
    with pytest.raises(Refused, match="managedFields must be nil"):
        await api.apply(A, made)
    reset = await api.json_patch(A, [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}])
    assert "managedFields" not in reset["metadata"]
