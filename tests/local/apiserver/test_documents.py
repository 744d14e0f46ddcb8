"""Discovery, OpenAPI and reviews: what clients read before they act."""

import re
from typing import Any

import pytest

from tests.local.apiserver.conftest import DEFINITIONS, GUEST, TOKEN, Api, definition

Json = dict[str, Any]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_every_resource_is_in_both_forms_of_discovery(api: Api) -> None:
    legacy: set[tuple[str, str, str]] = set()
    for group in (await api.get("/apis"))["groups"]:
        for version in group["versions"]:
            listed = await api.get(f"/apis/{version['groupVersion']}")
            legacy |= {
                (group["name"], version["version"], item["name"])
                for item in listed["resources"]
                if "/" not in item["name"]
            }
    legacy |= {("", "v1", item["name"]) for item in (await api.get("/api/v1"))["resources"] if "/" not in item["name"]}
    aggregated: set[tuple[str, str, str]] = set()
    for path in ("/api", "/apis"):
        document = await api.get(path, headers={"Accept": AGGREGATED})
        assert (document["kind"], document["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
        for item in document["items"]:
            for version in item["versions"]:
                names = [resource["resource"] for resource in version["resources"]]
                aggregated |= {(item["metadata"]["name"], version["version"], name) for name in names}
    assert legacy == aggregated
    assert {("", "v1", "pods"), ("apps", "v1", "deployments"), ("batch", "v1", "jobs")} <= legacy


async def test_subresources_are_listed_with_their_kinds(api: Api) -> None:
    listed = {item["name"]: item for item in (await api.get("/apis/apps/v1"))["resources"]}
    assert listed["deployments"]["shortNames"] == ["deploy"]
    assert listed["deployments"]["categories"] == ["all"]
    assert listed["deployments/status"]["verbs"] == ["get", "patch", "update"]
    assert (listed["deployments/scale"]["group"], listed["deployments/scale"]["kind"]) == ("autoscaling", "Scale")


async def test_the_version_is_the_one_whose_api_is_offered(api: Api) -> None:
    version = await api.get("/version", headers={"Authorization": ""})
    assert (version["major"], version["minor"]) == ("1", "34")


def references(document: Any) -> set[str]:
    if isinstance(document, list):
        return set().union(*(references(item) for item in document)) if document else set()
    if not isinstance(document, dict):
        return set()
    own = {document["$ref"]} if isinstance(document.get("$ref"), str) else set()
    return own.union(*(references(value) for value in document.values()))


async def test_open_api_documents_are_whole(api: Api) -> None:
    await api.post(DEFINITIONS, definition({"type": "object", "properties": {"n": {"type": "integer"}}}))
    index = (await api.get("/openapi/v3"))["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/test.dev/v1"} <= set(index)
    for entry in index.values():
        document = await api.get(entry["serverRelativeURL"])
        names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert references(document) <= names
    v2 = await api.get("/openapi/v2")
    assert references(v2) <= {f"#/definitions/{name}" for name in v2["definitions"]}


async def test_open_api_names_the_parameters_of_every_path(api: Api) -> None:
    for document in (await api.get("/openapi/v3/api/v1"), await api.get("/openapi/v2")):
        for path, item in document["paths"].items():
            named = [one["name"] for one in item.get("parameters", []) if one["in"] == "path" and one["required"]]
            assert named == re.findall(r"{(\w+)}", path), path


async def test_every_kind_tells_that_it_validates_fields_on_the_server(api: Api) -> None:
    """kubectl leaves validation to a server that offers fieldValidation for the kind's PATCH."""
    await api.post(DEFINITIONS, definition({"type": "object"}))
    document = await api.get("/openapi/v3/apis/test.dev/v1")
    patch = document["paths"]["/apis/test.dev/v1/namespaces/{namespace}/widgets/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "test.dev", "version": "v1", "kind": "Widget"}
    assert "fieldValidation" in [parameter["name"] for parameter in patch["parameters"]]


async def test_a_changed_definition_changes_its_document_and_hash(api: Api) -> None:
    await api.post(DEFINITIONS, definition({"type": "object"}))
    before = (await api.get("/openapi/v3"))["paths"]["apis/test.dev/v1"]["serverRelativeURL"]
    await api.get(before)
    changed = definition({"type": "object", "properties": {"fresh": {"type": "string"}}})
    await api.merge(f"{DEFINITIONS}/widgets.test.dev", {"spec": {"versions": changed["spec"]["versions"]}})
    after = (await api.get("/openapi/v3"))["paths"]["apis/test.dev/v1"]["serverRelativeURL"]
    assert after != before
    schema = (await api.get(after))["components"]["schemas"]["dev.test.v1.Widget"]
    assert schema["properties"]["spec"]["properties"] == {"fresh": {"type": "string"}}


REVIEWS = "/apis/authorization.k8s.io/v1"


@pytest.mark.parametrize(("token", "allowed"), [(TOKEN, True), (GUEST, False)])
async def test_users_can_ask_what_they_may(api: Api, token: str, allowed: bool) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    spec = {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}}
    answer = await api.post(f"{REVIEWS}/selfsubjectaccessreviews", {"spec": spec}, headers=headers)
    assert answer["status"]["allowed"] is allowed
    rules = await api.post(f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}, headers=headers)
    assert bool(rules["status"]["resourceRules"]) is allowed


async def test_users_can_ask_who_they_are(api: Api) -> None:
    answer = await api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert answer["status"]["userInfo"] == {"username": "admin", "groups": ["system:masters", "system:authenticated"]}


async def test_tokens_can_be_reviewed(api: Api) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    known = await api.post(path, {"spec": {"token": GUEST}})
    assert (known["status"]["authenticated"], known["status"]["user"]["username"]) == (True, "guest")
    unknown = await api.post(path, {"spec": {"token": "x"}})
    assert unknown["status"]["authenticated"] is False
