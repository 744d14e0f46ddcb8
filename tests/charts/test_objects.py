"""What is rendered is valid Kubernetes of every supported version, under the restricted Pod Security Standard."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Any

import kubernetes_validate
import pytest
import yaml

from alidade_crds.blocks import Compute
from alidade_crds.crd import manifests
from alidade_operator.admissionserver import PATH
from alidade_operator.api import PARENT_KINDS
from alidade_operator.config import Admission, NodePool, OperatorConfig
from alidade_operator.reconcile.craft import EVALUATING, QUANTIZING, TRAINING
from alidade_operator.resources.engines.server import SERVER_PORT
from alidade_operator.resources.labels import SELECTOR, child_labels
from alidade_operator.resources.observation import TRAINING_CONTAINER
from alidade_operator.resources.serving import CANARY, COMPONENT, GATEWAY, service
from alidade_operator.resources.trainingpod import PROGRESS_PORT, Mounts, pod_spec, trainer
from tests.charts.rendering import NAMESPACE, VALUE_SETS, Json, of_kind, pod_specs, render, the

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
CUSTOM = ("ServiceMonitor", "PodMonitor", "PrometheusRule", "Issuer", "Certificate")
CLUSTER_SCOPED = (
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ValidatingWebhookConfiguration",
)


def builtin(objects: list[Json]) -> list[Json]:
    return [one for one in objects if one["kind"] not in CUSTOM]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_in_each_version(version: str) -> None:
    """Strictly: a field that the version does not know is a failure too. The resource types are checked once below."""
    for values in VALUE_SETS.values():
        for one in builtin(render(values)):
            if one["kind"] != "CustomResourceDefinition":
                kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_resource_types_are_valid(version: str) -> None:
    for one in of_kind(render({}), "CustomResourceDefinition"):
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_objects_are_named_labelled_and_placed(name: str) -> None:
    objects = render(VALUE_SETS[name])
    places = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(set(places)) == len(places), "an object is rendered twice"
    allowed = {NAMESPACE, *VALUE_SETS[name].get("watchNamespaces", [])}
    allowed |= set(VALUE_SETS[name].get("workspace", {}).get("namespaces", []))
    for kind, namespace, own in places:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", own), own
        assert (namespace is None) == (kind in CLUSTER_SCOPED), (kind, own)
        assert namespace is None or namespace in allowed, (kind, own)
    for one in objects:
        if one["kind"] != "CustomResourceDefinition":
            assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "alidade"


def test_nothing_of_the_chart_looks_like_a_child_of_a_resource() -> None:
    """What carries the operator's selector is in its watches, and is taken for its own."""
    key, _, value = SELECTOR.partition("=")
    for values in VALUE_SETS.values():
        for one in render(values):
            assert (one["metadata"].get("labels") or {}).get(key) != value
    assert child_labels("FineTuneJob", "a", "trainer")[key] == value


@pytest.mark.parametrize("name", VALUE_SETS)
def test_pods_keep_to_the_restricted_standard(name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, each control of `restricted` in turn."""
    found = list(pod_specs(render(VALUE_SETS[name])))
    assert len(found) == 2, "the operator and the test"
    for who, spec in found:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), who
        assert all(_is_harmless(volume) for volume in spec.get("volumes", [])), who
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = {**spec["securityContext"], **container["securityContext"]}
            assert context["runAsNonRoot"] is True, who
            assert context["runAsUser"] > 0, who
            assert context["allowPrivilegeEscalation"] is False, who
            assert context["capabilities"] == {"drop": ["ALL"]}, who
            assert context["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost"), who
            assert not context.get("privileged"), who
            assert context["readOnlyRootFilesystem"] is True, who
            assert not any("hostPort" in port for port in container.get("ports", [])), who
            assert set(container["resources"]) == {"requests", "limits"}, who


def _is_harmless(volume: Json) -> bool:
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
    return set(volume) - {"name"} <= allowed | {"secret"}


def test_only_the_operator_gets_a_token_of_the_api_server() -> None:
    objects = render({})
    assert the(objects, "Pod")["spec"]["automountServiceAccountToken"] is False
    deployment = the(objects, "Deployment")
    assert (
        deployment["spec"]["template"]["spec"]["serviceAccountName"]
        == the(objects, "ServiceAccount")["metadata"]["name"]
    )


def test_pods_ports_probes_and_policies_agree() -> None:
    objects = render({"config": {"metricsPort": 9191}, "monitoring": {"enabled": True}})
    container = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9191, "protocol": "TCP"}]
    assert all(container[probe]["httpGet"]["port"] == "metrics" for probe in ("startupProbe", "livenessProbe"))
    service = the(objects, "Service", "alidade-operator")
    assert service["spec"]["ports"][0]["port"] == 9191
    assert service["spec"]["publishNotReadyAddresses"], "helm test would find every replica ready that it is told of"
    test = the(objects, "Pod")["spec"]["containers"][0]
    assert {"name": "OPERATOR", "value": f"http://alidade-operator.{NAMESPACE}.svc:9191"} in test["env"]
    labels = the(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        service["spec"]["selector"],
        the(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        the(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        the(objects, "Deployment")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert not service["spec"]["selector"].items() <= the(objects, "Pod")["metadata"]["labels"].items()


def test_service_configuration_and_certificate_of_the_webhook_agree() -> None:
    """The API server connects to the Service's name, which the certificate has to be for."""
    objects = render({"webhook": {"enabled": True, "port": 10443}, "networkPolicy": {"webhookCidrs": ["10.0.0.0/28"]}})
    own = the(objects, "Service", "alidade-webhook")
    (hook,) = the(objects, "ValidatingWebhookConfiguration")["webhooks"]
    place = hook["clientConfig"]["service"]
    assert (place["namespace"], place["name"], place["path"]) == (NAMESPACE, "alidade-webhook", PATH)
    assert [(port["port"], port["targetPort"]) for port in own["spec"]["ports"]] == [(place["port"], "webhook")]
    assert "caBundle" not in hook["clientConfig"], "an upgrade would take it away"
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    assert {"name": "webhook", "containerPort": 10443, "protocol": "TCP"} in spec["containers"][0]["ports"]
    told = admission(objects)
    assert (told.enabled, told.port, told.certificate_folder) == (True, 10443, None)
    assert told.service == "alidade-webhook"
    assert told.configuration == the(objects, "ValidatingWebhookConfiguration")["metadata"]["name"]
    assert told.secret == the(objects, "Secret")["metadata"]["name"]
    assert "data" not in the(objects, "Secret"), "an upgrade would take it away"
    (_, rule) = the(objects, "NetworkPolicy")["spec"]["ingress"]
    assert rule == {"ports": [{"port": "webhook", "protocol": "TCP"}], "from": [{"ipBlock": {"cidr": "10.0.0.0/28"}}]}
    (rules,) = hook["rules"]
    assert rules["resources"] == sorted(kind.plural for kind in PARENT_KINDS)


def test_a_certificate_of_cert_manager_is_where_the_operator_looks() -> None:
    given = {"kind": "ClusterIssuer", "name": "company"}
    values = {"watchNamespaces": ["team-a"], "webhook": {"enabled": True, "certManager": {"enabled": True}}}
    objects = render(values)
    certificate = the(objects, "Certificate")
    assert certificate["spec"]["dnsNames"][0] == f"alidade-webhook.{NAMESPACE}.svc"
    assert certificate["spec"]["issuerRef"]["name"] == the(objects, "Issuer")["metadata"]["name"]
    configuration = the(objects, "ValidatingWebhookConfiguration")
    source = f"{NAMESPACE}/{certificate['metadata']['name']}"
    assert configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == source
    (hook,) = configuration["webhooks"]
    (only,) = hook["namespaceSelector"]["matchExpressions"]
    assert only == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a"]}
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    (volume,) = [one for one in spec["volumes"] if "secret" in one]
    assert volume["secret"]["secretName"] == certificate["spec"]["secretName"]
    (mount,) = [one for one in spec["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
    assert admission(objects).certificate_folder == mount["mountPath"]
    values["webhook"] = {"enabled": True, "certManager": {"enabled": True, "issuer": given}}
    objects = render(values)
    assert of_kind(objects, "Issuer") == []
    assert given.items() <= the(objects, "Certificate")["spec"]["issuerRef"].items()


def admission(objects: list[Json]) -> Admission:
    """What the operator is told of the webhook."""
    (text,) = [one["data"]["operator.yaml"] for one in of_kind(objects, "ConfigMap") if "operator.yaml" in one["data"]]
    return OperatorConfig.model_validate(yaml.safe_load(text)).admission


def test_the_policy_lets_the_operator_read_what_it_reads() -> None:
    """The API server, DNS, and the pods that it has made on the ports that they answer at."""
    (_, _, pods) = the(render({}), "NetworkPolicy")["spec"]["egress"]
    assert [port["port"] for port in pods["ports"]] == [PROGRESS_PORT] == [SERVER_PORT]
    (peer,) = pods["to"]
    assert peer["podSelector"]["matchLabels"].items() <= child_labels("FineTuneJob", "a", "trainer").items()


def test_pods_of_jobs_reach_one_another_served_models_and_what_is_public() -> None:
    assert [one["metadata"]["name"] for one in of_kind(render({}), "NetworkPolicy")] == ["alidade-operator"]
    spec = the(render({"jobNetworkPolicy": {"namespaces": ["team-a"]}}), "NetworkPolicy", "alidade-jobs")["spec"]
    chosen = spec["podSelector"]
    (only,) = chosen["matchExpressions"]
    assert only["values"] == [craft.component for craft in (TRAINING, EVALUATING, QUANTIZING)]
    assert chosen["matchLabels"].items() <= child_labels("FineTuneJob", "a", "trainer").items()
    peers, told = spec["ingress"]
    assert peers == {"from": [{"podSelector": chosen}]}
    assert [port["port"] for port in told["ports"]] == [PROGRESS_PORT]
    _, jobs, served, public = spec["egress"]
    assert jobs == {"to": [{"podSelector": chosen}]}
    assert [port["port"] for port in served["ports"]] == [SERVER_PORT]
    closed = [ip_network(text) for block in public["to"] for text in block["ipBlock"]["except"]]
    for host in ("10.1.2.3", "169.254.169.254", "100.100.100.200", "192.168.0.1", "fd00:ec2::254", "fe80::1"):
        assert any(ip_address(host) in network for network in closed), host


@pytest.mark.parametrize(("endpoint", "port"), [("http://otel:4318", 4318), ("https://otel/v1/traces", 443)])
def test_the_operator_reaches_the_collector_of_traces(endpoint: str, port: int) -> None:
    rules = the(render({"config": {"tracing": {"endpoint": endpoint}}}), "NetworkPolicy")["spec"]["egress"]
    assert rules[-1] == {"ports": [{"port": port, "protocol": "TCP"}]}
    assert len(rules) == 1 + len(the(render({}), "NetworkPolicy")["spec"]["egress"])


def test_resource_types_are_those_of_the_types_and_are_kept_by_choice() -> None:
    kept = {one["metadata"]["name"]: one for one in of_kind(render({}), "CustomResourceDefinition")}
    assert set(kept) == {manifest["metadata"]["name"] for manifest in manifests()}
    for manifest in manifests():
        one = kept[manifest["metadata"]["name"]]
        assert one["spec"] == manifest["spec"]
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for one in of_kind(render({"crds": {"keep": False}}), "CustomResourceDefinition"):
        assert "helm.sh/resource-policy" not in one["metadata"]["annotations"]


def test_a_changed_configuration_replaces_the_pods() -> None:
    """Some fields are read at the start only."""

    def checksum(values: Json) -> Any:
        return the(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum({}) == checksum({"replicas": 3})
    assert checksum({}) != checksum({"config": {"workers": 3}})


def test_what_holds_models_outlives_the_release() -> None:
    for claim in of_kind(render(VALUE_SETS["all on"]), "PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert claim["metadata"]["name"] == "alidade-workspace"
        assert claim["spec"]["storageClassName"] == "filestore"


def test_a_single_replica_keeps_no_node_from_being_drained() -> None:
    assert of_kind(render({"replicas": 1}), "PodDisruptionBudget") == []


def test_monitors_find_the_pods_that_the_operator_makes() -> None:
    """By their labels, and by the names of the ports that answer /metrics."""
    backends = [{"name": "a"}, {"name": "b", "trainingBackend": "TrainJob"}]
    objects = render({"monitoring": {"enabled": True}, "config": {"nodePools": backends}})
    components: dict[str, set[str]] = {
        "alidade-trainers": {TRAINING.component},
        "alidade-trainjobs": {TRAINING.component},
        "alidade-evaluations": {EVALUATING.component},
        "alidade-servers": {str(COMPONENT), str(CANARY), str(GATEWAY)},
    }
    ports = pod_spec(
        trainer(OperatorConfig(), TRAINING_CONTAINER),
        mounts=Mounts("document"),
        compute=Compute(),
        pool=NodePool(name="default"),
        config=OperatorConfig(),
    )["containers"][0]["ports"]
    assert [port["name"] for port in ports] == ["metrics"]
    served = service(("team-a", "chat", "uid"), "chat", COMPONENT)["spec"]["ports"][0]["targetPort"]
    assert {one["metadata"]["name"] for one in of_kind(objects, "PodMonitor")} == set(components)
    for monitor in of_kind(objects, "PodMonitor"):
        name, spec = monitor["metadata"]["name"], monitor["spec"]
        found = set()
        for component in components[name]:
            kind = "ModelServe" if name == "alidade-servers" else "FineTuneJob"
            labels = child_labels(kind, "a", component) | OTHERS_LABELS
            if _selects(spec["selector"], labels):
                found.add(component)
        assert found == components[name], name
        assert not _selects(spec["selector"], child_labels("ModelServe", "a", "quantization") | OTHERS_LABELS)
        assert [one["port"] for one in spec["podMetricsEndpoints"]] == [
            served if name == "alidade-servers" else "metrics"
        ]


# What the training operator, and the controller of Jobs, put on the first pod.
OTHERS_LABELS = {"training.kubeflow.org/replica-type": "master", "batch.kubernetes.io/job-completion-index": "0"}


def _selects(selector: Json, labels: dict[str, str]) -> bool:
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return bool(selector["matchLabels"].items() <= labels.items())


def test_the_servers_monitor_gives_way_to_the_operators_own() -> None:
    """Pods would be scraped twice."""
    objects = render({"monitoring": {"enabled": True}, "config": {"podMonitors": True}})
    assert [one["metadata"]["name"] for one in of_kind(objects, "PodMonitor")] == [
        "alidade-trainers",
        "alidade-evaluations",
    ]
