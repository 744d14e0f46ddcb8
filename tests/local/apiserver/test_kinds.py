"""Defaults and rules of built-in kinds."""

import base64
from typing import Any

import pytest

from tests.local.apiserver.conftest import CONFIG_MAPS, PODS, Api, Refused, config_map, pod

Json = dict[str, Any]


async def test_a_pod_gets_the_defaults_of_kubernetes(api: Api) -> None:
    limits = {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
    made = await api.post(PODS, pod("p", containers=[{"name": "c", "image": "repo/x", **limits}]))
    spec, container = made["spec"], made["spec"]["containers"][0]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Always", 30)
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert made["status"] == {"phase": "Pending", "qosClass": "Guaranteed"}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"containers": []}, "spec.containers", "Required value"),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image", "Required value"),
        (
            {"restartPolicy": "Sometimes"},
            "spec.restartPolicy",
            'Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
        ),
        (
            {"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]},
            "spec.containers[1].name",
            'Duplicate value: "c"',
        ),
        (
            {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            "spec.containers[0].volumeMounts[0].name",
            'Not found: "v"',
        ),
    ],
)
async def test_a_bad_pod_is_refused_with_field_and_reason(api: Api, spec: Json, field: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        await api.post(PODS, pod("p", **spec))
    assert refused.value.code == 422
    assert (field, message) in refused.value.causes
    assert refused.value.message.startswith('Pod "p" is invalid: ')


async def test_a_pod_spec_cannot_change_but_for_images(api: Api) -> None:
    await api.post(PODS, pod("p"))
    await api.strategic(f"{PODS}/p", {"spec": {"containers": [{"name": "main", "image": "other:2"}]}})
    with pytest.raises(Refused) as refused:
        await api.strategic(f"{PODS}/p", {"spec": {"containers": [{"name": "main", "command": ["x"]}]}})
    assert refused.value.causes[0][0] == "spec"
    assert "pod updates may not change fields other than" in refused.value.message


async def test_names_follow_the_rules_of_dns(api: Api) -> None:
    with pytest.raises(Refused) as refused:
        await api.post(CONFIG_MAPS, config_map("Bad_Name"))
    field, message = refused.value.causes[0]
    assert field == "metadata.name"
    assert message.startswith('Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of')


async def test_labels_follow_their_rules(api: Api) -> None:
    obj = config_map("a")
    obj["metadata"]["labels"] = {"ok": "not ok!"}
    with pytest.raises(Refused) as refused:
        await api.post(CONFIG_MAPS, obj)
    assert refused.value.causes[0][0] == "metadata.labels"


async def test_string_data_of_a_secret_is_stored_encoded(api: Api) -> None:
    path = "/api/v1/namespaces/default/secrets"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "väl"}}
    made = await api.post(path, secret)
    assert "stringData" not in made
    assert (made["type"], base64.b64decode(made["data"]["key"]).decode()) == ("Opaque", "väl")
    with pytest.raises(Refused, match="illegal base64 data"):
        await api.merge(f"{path}/s", {"data": {"key": "%%%"}})


async def test_an_immutable_config_map_stays_as_it_is(api: Api) -> None:
    await api.post(CONFIG_MAPS, {**config_map("a", x="1"), "immutable": True})
    with pytest.raises(Refused, match="field is immutable when `immutable` is set"):
        await api.merge(f"{CONFIG_MAPS}/a", {"data": {"x": "2"}})


async def test_a_job_selects_its_own_pods(api: Api) -> None:
    path = "/apis/batch/v1/namespaces/default/jobs"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}}
    made = await api.post(path, job)
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert made["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "j"
    assert (made["spec"]["completions"], made["spec"]["parallelism"], made["spec"]["backoffLimit"]) == (1, 1, 6)
    with pytest.raises(Refused) as refused:
        await api.merge(f"{path}/j", {"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}})
    assert ("spec.template", "field is immutable") in [(f, m.rpartition(": ")[2]) for f, m in refused.value.causes]
    applied_again = await api.apply(f"{path}/j", {**job, "metadata": {"name": "j", "labels": {"a": "b"}}})
    assert applied_again["spec"]["selector"] == made["spec"]["selector"]


async def test_a_job_that_restarts_always_is_refused(api: Api) -> None:
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}
    with pytest.raises(Refused) as refused:
        await api.post(
            "/apis/batch/v1/namespaces/default/jobs",
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec},
        )
    assert refused.value.causes == [
        (
            "spec.template.spec.restartPolicy",
            'Unsupported value: "Always": supported values: "OnFailure", "Never"',
        )
    ]


async def test_a_deployment_selects_its_template(api: Api) -> None:
    spec = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    with pytest.raises(Refused) as refused:
        await api.post(
            "/apis/apps/v1/namespaces/default/deployments",
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec},
        )
    assert "`selector` does not match template `labels`" in refused.value.message


async def test_events_are_one_kind_in_two_groups(api: Api) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Tested",
        "message": "it works",
        "type": "Normal",
        "count": 2,
    }
    await api.post("/api/v1/namespaces/default/events", event)
    seen = await api.get("/apis/events.k8s.io/v1/namespaces/default/events/e")
    assert (seen["apiVersion"], seen["note"], seen["regarding"]["name"]) == ("events.k8s.io/v1", "it works", "p")
    assert seen["deprecatedCount"] == 2
    found = await api.get(
        "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=p,involvedObject.kind=Pod,reason!=Other"
    )
    assert [item["metadata"]["name"] for item in found["items"]] == ["e"]
    newer = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "f"},
        "regarding": {"kind": "Pod", "name": "q", "namespace": "default"},
        "note": "new form",
        "reason": "Tested",
        "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "tester",
    }
    await api.post("/apis/events.k8s.io/v1/namespaces/default/events", newer)
    core = await api.get("/api/v1/namespaces/default/events/f")
    assert (core["message"], core["involvedObject"]["name"]) == ("new form", "q")


async def test_quantities_are_text_and_checked(api: Api) -> None:
    def limited(quantity: Any) -> Json:
        return pod("p", containers=[{"name": "c", "image": "i", "resources": {"limits": {"cpu": quantity}}}])

    made = await api.post(PODS, limited(2))
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "2"}
    for bad in ("lots", True, "1Xi", ""):
        with pytest.raises(Refused, match="quantities must match the regular expression") as refused:
            await api.post(PODS, limited(bad))
        assert refused.value.code == 400


async def test_times_must_be_times(api: Api) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}}
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    await api.post(path, {**lease, "spec": {"renewTime": "2026-01-01T00:00:00.123456Z"}})
    with pytest.raises(Refused, match='parsing time "noon"') as refused:
        await api.merge(f"{path}/l", {"spec": {"renewTime": "noon"}})
    assert refused.value.code == 400


async def test_a_binding_refers_to_one_role_for_good(api: Api) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "b"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}],
    }
    made = await api.post(path, binding)
    assert made["roleRef"]["apiGroup"] == made["subjects"][0]["apiGroup"] == "rbac.authorization.k8s.io"
    with pytest.raises(Refused, match="cannot change roleRef"):
        await api.merge(f"{path}/b", {"roleRef": {"name": "other"}})
    with pytest.raises(Refused) as refused:
        await api.post(path, {**binding, "metadata": {"name": "c"}, "roleRef": {"kind": "Pod"}})
    assert [field for field, _ in refused.value.causes] == ["roleRef.kind", "roleRef.name"]


@pytest.mark.parametrize(
    ("strategy", "field", "message"),
    [
        (
            {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}},
            "spec.strategy.rollingUpdate.maxUnavailable",
            'Invalid value: "0%": may not be 0 when `maxSurge` is 0',
        ),
        (
            {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}},
            "spec.strategy.rollingUpdate",
            "Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            {"type": "Sudden"},
            "spec.strategy.type",
            'Unsupported value: "Sudden": supported values: "Recreate", "RollingUpdate"',
        ),
        (
            {"rollingUpdate": {"maxUnavailable": "200%"}},
            "spec.strategy.rollingUpdate.maxUnavailable",
            'Invalid value: "200%": must not be greater than 100%',
        ),
    ],
)
async def test_a_strategy_that_leads_nowhere_is_refused(api: Api, strategy: Json, field: str, message: str) -> None:
    labels = {"a": "b"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template, "strategy": strategy}
    with pytest.raises(Refused) as refused:
        await api.post("/apis/apps/v1/namespaces/default/deployments", {"metadata": {"name": "d"}, "spec": spec})
    assert (field, message) in refused.value.causes
