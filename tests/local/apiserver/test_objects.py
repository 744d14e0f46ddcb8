"""Create, read, update, delete: what every client relies on."""

import asyncio

import pytest

from tests.local.apiserver.conftest import CONFIG_MAPS, GUEST, PODS, Api, Refused, config_map, pod


async def test_a_created_object_has_an_identity_and_a_version(api: Api) -> None:
    made = await api.post(CONFIG_MAPS, config_map("a", x="1"))
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert len(metadata["uid"]) == 36
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["creationTimestamp"].endswith("Z")
    assert await api.get(f"{CONFIG_MAPS}/a") == made


async def test_a_name_can_be_taken_once(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a"))
    with pytest.raises(Refused) as refused:
        await api.post(CONFIG_MAPS, config_map("a"))
    assert refused.value.status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "a" already exists',
        "reason": "AlreadyExists",
        "details": {"name": "a", "kind": "configmaps"},
        "code": 409,
    }


async def test_generate_name_gets_five_random_characters(api: Api) -> None:
    obj = config_map("")
    obj["metadata"] = {"generateName": "run-"}
    names = {(await api.post(CONFIG_MAPS, obj))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


async def test_a_missing_object_is_a_404_with_its_resource_and_name(api: Api) -> None:
    with pytest.raises(Refused) as refused:
        await api.get("/apis/apps/v1/namespaces/default/deployments/no")
    assert refused.value.code == 404
    assert refused.value.message == 'deployments.apps "no" not found'
    assert refused.value.status["details"] == {"name": "no", "group": "apps", "kind": "deployments"}


async def test_an_update_with_a_stale_version_is_a_conflict(api: Api) -> None:
    old = await api.post(CONFIG_MAPS, config_map("a", x="1"))
    await api.put(f"{CONFIG_MAPS}/a", {**old, "data": {"x": "2"}})
    with pytest.raises(Refused) as refused:
        await api.put(f"{CONFIG_MAPS}/a", {**old, "data": {"x": "3"}})
    assert (refused.value.code, refused.value.status["reason"]) == (409, "Conflict")
    assert refused.value.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to '
        "the latest version and try again"
    )


async def test_an_update_that_changes_nothing_keeps_the_version(api: Api) -> None:
    old = await api.post(CONFIG_MAPS, config_map("a", x="1"))
    again = await api.put(f"{CONFIG_MAPS}/a", old)
    patched = await api.merge(f"{CONFIG_MAPS}/a", {"data": {"x": "1"}})
    assert (
        again["metadata"]["resourceVersion"]
        == patched["metadata"]["resourceVersion"]
        == old["metadata"]["resourceVersion"]
    )


async def test_the_server_keeps_what_it_owns(api: Api) -> None:
    old = await api.post(CONFIG_MAPS, config_map("a"))
    changed = {
        **old,
        "metadata": {**old["metadata"], "uid": old["metadata"]["uid"], "creationTimestamp": "2001-01-01T00:00:00Z"},
    }
    new = await api.put(f"{CONFIG_MAPS}/a", changed)
    assert new["metadata"]["creationTimestamp"] == old["metadata"]["creationTimestamp"]


async def test_another_uid_is_another_object(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a"))
    with pytest.raises(Refused) as refused:
        await api.merge(f"{CONFIG_MAPS}/a", {"metadata": {"uid": "0"}, "data": {"x": "1"}})
    assert refused.value.code == 409
    assert "Precondition failed: UID in precondition: 0" in refused.value.message


async def test_the_generation_counts_changes_of_the_spec_only(api: Api) -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }
    path = "/apis/apps/v1/namespaces/default/deployments"
    assert (await api.post(path, deployment))["metadata"]["generation"] == 1
    labelled = await api.merge(f"{path}/d", {"metadata": {"labels": {"x": "y"}}})
    assert labelled["metadata"]["generation"] == 1
    reported = await api.merge(f"{path}/d/status", {"status": {"replicas": 1}})
    assert (reported["metadata"]["generation"], reported["status"]["replicas"]) == (1, 1)
    scaled = await api.merge(f"{path}/d", {"spec": {"replicas": 3}, "status": {"replicas": 9}})
    assert (scaled["metadata"]["generation"], scaled["spec"]["replicas"], scaled["status"]["replicas"]) == (2, 3, 1)
    kept = await api.merge(f"{path}/d/status", {"spec": {"replicas": 7}, "status": {"replicas": 3}})
    assert (kept["metadata"]["generation"], kept["spec"]["replicas"], kept["status"]["replicas"]) == (2, 3, 3)


async def test_the_scale_subresource_reads_and_writes_replicas(api: Api) -> None:
    path = "/apis/apps/v1/namespaces/default/replicasets"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, "replicas": 2}
    await api.post(path, {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec})
    scale = await api.get(f"{path}/r/scale")
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 2},
        {"replicas": 0, "selector": "a=b"},
    )
    assert (await api.put(f"{path}/r/scale", {**scale, "spec": {"replicas": 5}}))["spec"] == {"replicas": 5}
    assert (await api.get(f"{path}/r"))["spec"]["replicas"] == 5
    with pytest.raises(Refused) as refused:
        await api.put(f"{path}/r/scale", {**scale, "spec": {"replicas": 1}})
    assert refused.value.code == 409


async def test_finalizers_hold_a_deleted_object_until_the_last_one_goes(api: Api) -> None:
    obj = config_map("a")
    obj["metadata"]["finalizers"] = ["test.dev/one", "test.dev/two"]
    await api.post(CONFIG_MAPS, obj)
    marked = await api.delete(f"{CONFIG_MAPS}/a")
    assert marked["metadata"]["deletionTimestamp"]
    with pytest.raises(Refused, match="no new finalizers can be added if the object is being deleted"):
        await api.merge(f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": ["test.dev/one", "test.dev/three"]}})
    await api.json_patch(f"{CONFIG_MAPS}/a", [{"op": "remove", "path": "/metadata/finalizers/0"}])
    assert (await api.get(f"{CONFIG_MAPS}/a"))["metadata"]["finalizers"] == ["test.dev/two"]
    await api.merge(f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": None}})
    assert await api.gone(f"{CONFIG_MAPS}/a")


async def test_a_delete_can_insist_on_uid_and_version(api: Api) -> None:
    made = await api.post(CONFIG_MAPS, config_map("a"))
    for wanted in ({"uid": "other"}, {"resourceVersion": "1"}):
        with pytest.raises(Refused) as refused:
            await api.delete(f"{CONFIG_MAPS}/a", {"preconditions": wanted})
        assert refused.value.code == 409
    await api.delete(f"{CONFIG_MAPS}/a", {"preconditions": {"uid": made["metadata"]["uid"]}})
    assert await api.gone(f"{CONFIG_MAPS}/a")


async def test_a_bound_pod_is_deleted_by_its_kubelet(api: Api) -> None:
    await api.post(PODS, pod("p"))
    await api.post(f"{PODS}/p/binding", {"apiVersion": "v1", "kind": "Binding", "target": {"name": "local"}})
    marked = await api.delete(f"{PODS}/p", {"gracePeriodSeconds": 7})
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 7
    shorter = await api.delete(f"{PODS}/p", {"gracePeriodSeconds": 3})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 3
    await api.delete(f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert await api.gone(f"{PODS}/p")


async def test_a_pod_without_a_node_goes_at_once(api: Api) -> None:
    await api.post(PODS, pod("p"))
    await api.delete(f"{PODS}/p")
    assert await api.gone(f"{PODS}/p")


async def test_a_pod_is_bound_once(api: Api) -> None:
    await api.post(PODS, pod("p"))
    binding = {"apiVersion": "v1", "kind": "Binding", "target": {"name": "local"}}
    await api.post(f"{PODS}/p/binding", binding)
    with pytest.raises(Refused, match='pod p is already assigned to node "local"'):
        await api.post(f"{PODS}/p/binding", binding)


async def test_delete_collection_honours_selectors(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.post(PODS, pod(name))
    await api.delete(f"{PODS}?labelSelector=app+in+(a,b)")
    assert [item["metadata"]["name"] for item in (await api.get(PODS))["items"]] == ["c"]


async def test_a_dry_run_checks_and_stores_nothing(api: Api) -> None:
    made = await api.post(f"{CONFIG_MAPS}?dryRun=All", config_map("a", x="1"))
    assert made["metadata"]["uid"]
    assert await api.gone(f"{CONFIG_MAPS}/a")
    await api.post(CONFIG_MAPS, config_map("a", x="1"))
    changed = await api.merge(f"{CONFIG_MAPS}/a?dryRun=All", {"data": {"x": "2"}})
    assert changed["data"] == {"x": "2"}
    await api.delete(f"{CONFIG_MAPS}/a", {"dryRun": ["All"]})
    assert (await api.get(f"{CONFIG_MAPS}/a"))["data"] == {"x": "1"}


async def test_objects_need_their_namespace(api: Api) -> None:
    with pytest.raises(Refused) as refused:
        await api.post("/api/v1/namespaces/nowhere/configmaps", config_map("a"))
    assert (refused.value.code, refused.value.message) == (404, 'namespaces "nowhere" not found')


async def test_the_body_must_speak_of_what_the_path_names(api: Api) -> None:
    other_version = {**config_map("a"), "apiVersion": "v2"}
    with pytest.raises(
        Refused, match=r"the API version in the data \(v2\) does not match the expected API version \(v1\)"
    ):
        await api.post(CONFIG_MAPS, other_version)
    elsewhere = config_map("a")
    elsewhere["metadata"]["namespace"] = "kube-system"
    with pytest.raises(Refused, match="the namespace of the provided object does not match"):
        await api.post(CONFIG_MAPS, elsewhere)
    await api.post(CONFIG_MAPS, config_map("a"))
    with pytest.raises(Refused, match=r"the name of the object \(b\) does not match the name on the URL \(a\)"):
        await api.put(f"{CONFIG_MAPS}/a", config_map("b"))


async def test_without_a_known_token_nothing_is_answered(api: Api) -> None:
    for header in ("", "Bearer wrong", "Basic YTpi"):
        with pytest.raises(Refused) as refused:
            await api.get(CONFIG_MAPS, headers={"Authorization": header})
        assert (refused.value.code, refused.value.status["reason"]) == (401, "Unauthorized")


async def test_a_user_without_rights_is_forbidden(api: Api) -> None:
    with pytest.raises(Refused) as refused:
        await api.get(CONFIG_MAPS, headers={"Authorization": f"Bearer {GUEST}"})
    assert refused.value.code == 403
    assert 'User "guest" cannot list resource "configmaps"' in refused.value.message


async def test_health_is_told_to_everybody(api: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/readyz/ping"):
        assert (await api.get(path, headers={"Authorization": ""}))["text"] == "ok"


@pytest.mark.parametrize(
    ("body", "media", "code", "words"),
    [
        (b"{", "application/json", 400, "not valid JSON"),
        (b"[]", "application/json", 400, "expected an object"),
        (b"a: [", "application/yaml", 400, "error converting YAML to JSON"),
        (b"<a/>", "text/xml", 415, "accepted media types include: application/json"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "application/json", 400, "nested more than 100 levels"),
        (b" " * (4 * 1024 * 1024), "application/json", 413, "Request entity too large: limit is 3145728"),
        (b"nonsense", "application/vnd.kubernetes.protobuf", 400, "does not begin with 'k8s"),
    ],
)
async def test_unreadable_bodies_are_refused_with_a_reason(
    api: Api, body: bytes, media: str, code: int, words: str
) -> None:
    with pytest.raises(Refused) as refused:
        await api.call("POST", CONFIG_MAPS, body, headers={"Content-Type": media})
    assert refused.value.code == code
    assert words in refused.value.message


async def test_yaml_bodies_are_read_and_their_dates_stay_text(api: Api) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  day: '2020-01-01'\n"
    made = await api.call("POST", CONFIG_MAPS, body, headers={"Content-Type": "application/yaml"})
    assert made["data"] == {"day": "2020-01-01"}


async def test_an_answer_that_the_client_cannot_take_is_a_406(api: Api) -> None:
    with pytest.raises(Refused) as refused:
        await api.get(CONFIG_MAPS, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert refused.value.code == 406


async def test_unknown_resources_and_verbs_have_their_statuses(api: Api) -> None:
    for path in ("/api/v1/namespaces/default/nonsense", "/apis/batch/v1/cronjobs", "/nonsense", "/api/v2/pods"):
        with pytest.raises(Refused) as refused:
            await api.get(path)
        assert (refused.value.code, refused.value.status["reason"]) == (404, "NotFound")
    with pytest.raises(Refused) as refused:
        await api.put(CONFIG_MAPS, config_map("a"))
    assert (refused.value.code, refused.value.status["reason"]) == (405, "MethodNotAllowed")


async def test_fields_of_the_wrong_type_are_named(api: Api) -> None:
    with pytest.raises(Refused) as refused:
        await api.post(PODS, pod("p", containers=[{"name": "c", "image": "i", "ports": [{"containerPort": "x"}]}]))
    assert refused.value.code == 400
    assert refused.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field '
        "Pod.spec.containers.ports.containerPort of type int32"
    )
    labelled = config_map("a")
    labelled["metadata"]["labels"] = {"x": 1}
    with pytest.raises(Refused, match="cannot unmarshal number into Go struct field ConfigMap"):
        await api.post(CONFIG_MAPS, labelled)


async def test_unknown_fields_are_dropped_warned_of_or_refused(api: Api) -> None:
    obj = {**config_map("a"), "nonsense": 1}
    made = await api.post(CONFIG_MAPS, obj)
    assert "nonsense" not in made
    async with api.session.post(
        api.server.url + CONFIG_MAPS + "?fieldValidation=Warn", json={**obj, "metadata": {"name": "b"}}
    ) as answer:
        assert answer.headers.getall("Warning") == ['299 - "unknown field \\"nonsense\\""']
    with pytest.raises(Refused) as refused:
        await api.post(CONFIG_MAPS + "?fieldValidation=Strict", {**obj, "metadata": {"name": "c", "x": 1}})
    assert refused.value.message == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        'unknown field "metadata.x", unknown field "nonsense"'
    )


async def test_many_writers_at_once_each_get_their_own_version(api: Api) -> None:
    made = await asyncio.gather(*(api.post(CONFIG_MAPS, config_map(f"c{index}")) for index in range(200)))
    versions = {int(item["metadata"]["resourceVersion"]) for item in made}
    assert len(versions) == 200
