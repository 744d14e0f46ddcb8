"""CRDs: established, and their objects pruned, defaulted and validated as the original does it."""

import re
from typing import Any

import pytest

from tests.local.apiserver.conftest import DEFINITIONS, WIDGETS, Api, Refused, definition, widget

Json = dict[str, Any]

SPEC: Json = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "ratio": {"type": "number", "exclusiveMinimum": True, "minimum": 0},
        "word": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"},
        "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port"],
            "items": {
                "type": "object",
                "required": ["port"],
                "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}},
            },
        },
        "either": {"x-kubernetes-int-or-string": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "maybe": {"type": "string", "nullable": True},
        "template": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "when": {"type": "string", "format": "date-time"},
        "nested": {
            "type": "object",
            "default": {},
            "properties": {"deep": {"type": "integer", "default": 7}},
        },
    },
}


@pytest.fixture
async def widgets(api: Api) -> Api:
    await api.post(DEFINITIONS, definition(SPEC))
    return api


async def test_a_definition_is_established_and_served_at_once(api: Api) -> None:
    made = await api.post(DEFINITIONS, definition(SPEC))
    assert made["spec"]["names"]["singular"] == "widget"
    assert (await api.get(WIDGETS))["items"] == []

    async def conditions() -> dict[str, str]:
        status = (await api.get(f"{DEFINITIONS}/widgets.test.dev"))["status"]
        return {item["type"]: item["status"] for item in status["conditions"]}

    async def established() -> bool:
        return await conditions() == {"NamesAccepted": "True", "Established": "True"}

    await api.until(established)
    stored = await api.get(f"{DEFINITIONS}/widgets.test.dev")
    assert stored["status"]["storedVersions"] == ["v1"]
    groups = await api.get("/apis")
    assert "test.dev" in [group["name"] for group in groups["groups"]]


async def test_defaults_are_filled_in_at_every_level(widgets: Api) -> None:
    made = await widgets.post(WIDGETS, widget("a", size=1, ports=[{"port": 1}]))
    assert made["spec"] == {
        "size": 1,
        "color": "red",
        "nested": {"deep": 7},
        "ports": [{"port": 1, "protocol": "TCP"}],
    }
    assert made["metadata"]["generation"] == 1


async def test_nulls_are_absent_unless_they_mean_something(widgets: Api) -> None:
    made = await widgets.post(WIDGETS, widget("a", size=1, color=None, word=None, maybe=None))
    assert made["spec"] == {"size": 1, "color": "red", "nested": {"deep": 7}, "maybe": None}


async def test_unknown_fields_are_pruned_but_where_they_are_kept(widgets: Api) -> None:
    spec = {
        "size": 1,
        "junk": 1,
        "nested": {"junk": 1},
        "free": {"any": {"thing": 1}},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "more": 1},
        "ports": [{"port": 1, "junk": 1}],
    }
    made = await widgets.post(WIDGETS, widget("a", **spec))
    assert made["spec"]["free"] == {"any": {"thing": 1}}
    assert made["spec"]["template"] == spec["template"]
    assert "junk" not in str(made["spec"])
    with pytest.raises(Refused) as refused:
        await widgets.post(f"{WIDGETS}?fieldValidation=Strict", widget("b", **spec))
    assert refused.value.message == (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.junk", '
        'unknown field "spec.nested.junk", unknown field "spec.ports[0].junk"'
    )


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "spec.size", "Required value"),
        ({"size": 0}, "spec.size", "Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"size": 11}, "spec.size", "Invalid value: 11: spec.size in body should be less than or equal to 10"),
        ({"size": "1"}, "spec.size", 'Invalid value: "string": spec.size in body must be of type integer: "string"'),
        ({"size": 1.5}, "spec.size", 'Invalid value: "number": spec.size in body must be of type integer: "number"'),
        (
            {"size": 1, "color": "green"},
            "spec.color",
            'Unsupported value: "green": supported values: "red", "blue"',
        ),
        ({"size": 1, "ratio": 0}, "spec.ratio", "Invalid value: 0: spec.ratio in body should be greater than 0"),
        (
            {"size": 1, "word": "a"},
            "spec.word",
            'Invalid value: "a": spec.word in body should be at least 2 chars long',
        ),
        ({"size": 1, "word": "abcdef"}, "spec.word", "Too long: may not be more than 5 bytes"),
        ({"size": 1, "word": "AB"}, "spec.word", "Invalid value: \"AB\": spec.word in body should match '^[a-z]+$'"),
        ({"size": 1, "tags": ["a", "b", "c"]}, "spec.tags", "Too many: 3: must have at most 2 items"),
        ({"size": 1, "tags": ["a", "a"]}, "spec.tags[1]", 'Duplicate value: "a"'),
        ({"size": 1, "ports": [{"port": 1}, {"port": 1}]}, "spec.ports[1]", 'Duplicate value: {"port":1}'),
        ({"size": 1, "ports": [{}]}, "spec.ports[0].port", "Required value"),
        (
            {"size": 1, "either": True},
            "spec.either",
            'Invalid value: "boolean": spec.either in body must be of type integer,string: "boolean"',
        ),
        (
            {"size": 1, "labels": {"a": 1}},
            "spec.labels.a",
            'Invalid value: "integer": spec.labels.a in body must be of type string: "integer"',
        ),
        (
            {"size": 1, "when": "today"},
            "spec.when",
            'Invalid value: "today": spec.when in body must be of type date-time: "today"',
        ),
        ({"size": 1, "template": {"kind": "Pod"}}, "spec.template.apiVersion", "Required value: must not be empty"),
    ],
)
async def test_each_rule_of_a_schema_has_its_message(widgets: Api, spec: Json, field: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        await widgets.post(WIDGETS, widget("a", **spec))
    assert refused.value.code == 422
    assert (field, message) in refused.value.causes
    assert refused.value.message.startswith('Widget.test.dev "a" is invalid: ')
    assert refused.value.status["details"]["kind"] == "Widget"


async def test_status_and_spec_are_written_apart(widgets: Api) -> None:
    made = await widgets.post(WIDGETS, {**widget("a", size=1), "status": {"phase": "Early"}})
    assert "status" not in made
    reported = await widgets.put(f"{WIDGETS}/a/status", {**made, "spec": {"size": 9}, "status": {"phase": "Done"}})
    assert (reported["spec"]["size"], reported["status"]) == (1, {"phase": "Done"})
    assert reported["metadata"]["generation"] == 1
    changed = await widgets.put(f"{WIDGETS}/a", {**reported, "spec": {"size": 2}, "status": {"phase": "Never"}})
    assert (changed["spec"]["size"], changed["status"], changed["metadata"]["generation"]) == (2, {"phase": "Done"}, 2)


async def test_a_status_has_its_defaults_before_anybody_has_written_it(api: Api) -> None:
    """The original fills them in whenever it reads from its store, the answer to a creation too."""
    body = definition(SPEC)
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    status = {"default": {"seen": -1}, "properties": {"seen": {"type": "integer"}}}
    schema["properties"]["status"] |= status
    await api.post(DEFINITIONS, body)
    made = await api.post(WIDGETS, {**widget("a", size=1), "status": {"phase": "Early"}})
    assert made["status"] == (await api.get(f"{WIDGETS}/a"))["status"] == {"seen": -1}
    changed = await api.put(f"{WIDGETS}/a", {**made, "spec": {"size": 2}, "status": {"phase": "Never"}})
    assert changed["status"] == {"seen": -1}
    reported = await api.put(f"{WIDGETS}/a/status", {**changed, "status": {"phase": "Done"}})
    assert reported["status"] == {"phase": "Done"}


async def test_an_update_of_a_custom_resource_names_its_version(widgets: Api) -> None:
    made = await widgets.post(WIDGETS, widget("a", size=1))
    del made["metadata"]["resourceVersion"]
    with pytest.raises(Refused) as refused:
        await widgets.put(f"{WIDGETS}/a", made)
    assert refused.value.causes == [("metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")]


async def test_a_stricter_schema_lets_old_values_stay(widgets: Api) -> None:
    await widgets.post(WIDGETS, widget("a", size=9))
    stricter = {**SPEC, "properties": {**SPEC["properties"], "size": {"type": "integer", "maximum": 5}}}
    await widgets.merge(
        f"{DEFINITIONS}/widgets.test.dev", {"spec": {"versions": definition(stricter)["spec"]["versions"]}}
    )
    kept = await widgets.merge(f"{WIDGETS}/a", {"spec": {"color": "blue"}})
    assert (kept["spec"]["size"], kept["spec"]["color"]) == (9, "blue")
    with pytest.raises(Refused, match="should be less than or equal to 5"):
        await widgets.merge(f"{WIDGETS}/a", {"spec": {"size": 8}})


async def test_a_new_default_shows_in_old_objects(widgets: Api) -> None:
    await widgets.post(WIDGETS, widget("a", size=1))
    more = {**SPEC, "properties": {**SPEC["properties"], "fresh": {"type": "string", "default": "yes"}}}
    await widgets.merge(f"{DEFINITIONS}/widgets.test.dev", {"spec": {"versions": definition(more)["spec"]["versions"]}})
    assert (await widgets.get(f"{WIDGETS}/a"))["spec"]["fresh"] == "yes"
    assert (await widgets.get(WIDGETS))["items"][0]["spec"]["fresh"] == "yes"


async def test_a_deleted_definition_takes_its_objects_along(widgets: Api) -> None:
    await widgets.post(WIDGETS, widget("a", size=1))
    await widgets.delete(f"{DEFINITIONS}/widgets.test.dev")
    await widgets.until(lambda: widgets.gone(f"{DEFINITIONS}/widgets.test.dev"))
    with pytest.raises(Refused) as refused:
        await widgets.get(WIDGETS)
    assert refused.value.code == 404
    assert widgets.server.store.count("widgets.test.dev") == 0


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"properties": {}}, "type"),
        ({"type": "object", "properties": {"a": {}}}, "properties[a].type"),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, "properties[a].items"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "properties[a].type"),
        ({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}, "properties[a].default"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "properties[a].pattern"),
        ({"type": "object", "x-kubernetes-validations": [{"rule": "self.a <"}]}, "x-kubernetes-validations[0].rule"),
        ({"type": "object", "x-kubernetes-validations": [{"rule": "nope(self)"}]}, "x-kubernetes-validations[0].rule"),
        ({"type": "object", "x-kubernetes-validations": [{}]}, "x-kubernetes-validations[0].rule"),
        ({"type": "object", "$ref": "#/x"}, "$ref"),
    ],
)
async def test_a_schema_that_is_not_structural_is_refused(api: Api, spec: Json, field: str) -> None:
    with pytest.raises(Refused) as refused:
        await api.post(DEFINITIONS, definition(spec))
    base = "spec.validation.openAPIV3Schema.properties[spec]."
    assert base + field in [cause[0] for cause in refused.value.causes]


async def test_keywords_of_a_schema_have_their_types_at_any_depth(api: Api) -> None:
    items = {"type": "object", "required": ["x", False], "properties": {}}
    with pytest.raises(Refused) as refused:
        await api.post(DEFINITIONS, definition({"type": "array", "items": items}))
    field, message = refused.value.causes[0]
    assert field == "spec.validation.openAPIV3Schema.properties[spec].items.required"
    assert message == 'Invalid value: ["x",false]: has the wrong type for this keyword'


async def test_a_definition_is_named_after_its_plural_and_group(api: Api) -> None:
    wrong = definition(SPEC)
    wrong["metadata"]["name"] = "wrong.test.dev"
    with pytest.raises(Refused, match=re.escape('must be spec.names.plural+"."+spec.group')):
        await api.post(DEFINITIONS, wrong)


async def test_versions_are_offered_by_their_stability(api: Api) -> None:
    manifest = definition(SPEC)
    (first,) = manifest["spec"]["versions"]
    names = ["v1alpha1", "v2", "v1beta1", "v10"]
    manifest["spec"]["versions"] = [{**first, "name": name, "storage": name == "v2"} for name in names]
    await api.post(DEFINITIONS, manifest)
    group = await api.get("/apis/test.dev")
    assert [item["version"] for item in group["versions"]] == ["v10", "v2", "v1beta1", "v1alpha1"]
    await api.post(WIDGETS.replace("v1", "v2"), {**widget("a", size=1), "apiVersion": "test.dev/v2"})
    seen = await api.get(WIDGETS.replace("v1", "v10") + "/a")
    assert (seen["apiVersion"], seen["spec"]["size"]) == ("test.dev/v10", 1)


async def test_an_object_of_which_no_field_is_known_has_none(api: Api) -> None:
    await api.post(DEFINITIONS, definition({**SPEC, "properties": {**SPEC["properties"], "empty": {"type": "object"}}}))
    kept = await api.post(WIDGETS, {**widget("a", size=1), "spec": {"size": 1, "empty": {"more": 1}}})
    assert kept["spec"]["empty"] == {}
