"""What pods carry to reach what is outside: Secrets, proxies, certificates; and that they never carry too much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from alidade_crds.blocks import Compute, Credential, CredentialVariable
from alidade_crds.contract import HOSTS_ENV
from alidade_crds.hosts import HostPolicy
from alidade_operator.config import CaBundle, GangScheduling, NodePool, OperatorConfig, Proxy
from alidade_operator.resources.serving import deployment
from tests.operator.builders import evaluation, job, observed, plan
from tests.operator.security import restricted
from tests.operator.test_engines import server

GPUS = NodePool(name="gpu", gpus_per_node=8)
HUB = {"secretName": "hub", "variables": [{"name": "HF_TOKEN", "key": "token"}]}
BUCKET = {"secretName": "bucket"}
CLOUD = {
    "secretName": "cloud",
    "variables": [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "key": "key.json"}],
    "files": True,
}


def pod_of(config: OperatorConfig, **compute: Any) -> dict[str, Any]:
    """The spec of the first pod of a training job."""
    made = plan(job(compute=compute, training={"globalBatchSize": 64}), observed(), config=config)
    assert len(made.children) == 2, made.decisions
    template: dict[str, Any] = made.children[1].body["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    spec: dict[str, Any] = template["spec"]
    return spec


def environment(spec: dict[str, Any]) -> dict[str, Any]:
    """The variables of its container."""
    items = spec["containers"][0]["env"]
    found = {item["name"]: item.get("value", item.get("valueFrom")) for item in items}
    assert len(found) == len(items), "no name twice: server-side apply refuses that"
    return found


def test_without_any_of_it_pods_are_as_they_were() -> None:
    spec = pod_of(OperatorConfig())
    assert {volume["name"] for volume in spec["volumes"]} == {"job", "scratch", "shm", "claim-0", "claim-1"}
    assert "envFrom" not in spec["containers"][0]
    assert "serviceAccountName" not in spec
    assert not {name for name in environment(spec) if "proxy" in name.lower() or "CERT" in name}


def test_pods_are_told_which_hosts_they_may_be_redirected_to() -> None:
    assert HOSTS_ENV not in environment(pod_of(OperatorConfig())), "the strictest policy is theirs by default"
    config = OperatorConfig(allowed_hosts=["10.1.0.0/16"])
    assert HostPolicy.from_json(environment(pod_of(config))[HOSTS_ENV]) == config.hosts


def test_a_variable_takes_its_key_and_no_other() -> None:
    spec = pod_of(OperatorConfig(), credentials=[HUB])
    assert environment(spec)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "envFrom" not in spec["containers"][0]


def test_without_variables_every_key_is_one_and_nothing_of_the_platforms_is_replaced_by_it() -> None:
    container = pod_of(OperatorConfig(), credentials=[BUCKET])["containers"][0]
    # Kubernetes lets what stands in env win over envFrom.
    assert container["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert "ALIDADE_JOB" in {item["name"] for item in container["env"]}


def test_keys_that_are_files_are_mounted_for_the_pods_group_alone() -> None:
    spec = pod_of(OperatorConfig(), credentials=[HUB, CLOUD])
    folder = "/etc/alidade/credentials/cloud"
    assert {"name": "credentials-1", "secret": {"secretName": "cloud", "defaultMode": 0o440}} in spec["volumes"]
    assert {"name": "credentials-1", "mountPath": folder, "readOnly": True} in spec["containers"][0]["volumeMounts"]
    assert environment(spec)["GOOGLE_APPLICATION_CREDENTIALS"] == f"{folder}/key.json"


def test_the_resources_secret_replaces_the_pools_of_the_same_name_and_others_are_added() -> None:
    pool = NodePool(name="p", credentials=[Credential(secret_name="hub"), Credential(secret_name="bucket")])
    spec = pod_of(OperatorConfig(node_pools=[pool]), credentials=[HUB])
    assert spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert environment(spec)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


def test_no_credential_replaces_what_the_platform_or_the_pool_tells() -> None:
    names = ("ALIDADE_JOB", "HOME", "NCCL_DEBUG")
    taken = {"secretName": "odd", "variables": [{"name": name, "key": "k"} for name in names]}
    pool = NodePool(name="p", env=[{"name": "NCCL_DEBUG", "value": "WARN"}])
    told = environment(pod_of(OperatorConfig(node_pools=[pool]), credentials=[taken]))
    assert (told["ALIDADE_JOB"], told["HOME"], told["NCCL_DEBUG"]) == ("/etc/alidade/job/job.json", "/scratch", "WARN")


@pytest.mark.parametrize("variable", ["", "1A", "A B", "A=B", "Ä"])
def test_what_no_variable_can_be_called_is_refused(variable: str) -> None:
    with pytest.raises(ValidationError):
        Credential.model_validate({"secretName": "s", "variables": [{"name": variable, "key": "k"}]})


def test_proxies_are_never_asked_for_the_cluster_or_the_metadata_server() -> None:
    told = environment(pod_of(OperatorConfig(proxy=Proxy(http="http://proxy:3128", no_proxy=["10.0.0.0/8", ".svc"]))))
    assert told["HTTPS_PROXY"] == told["https_proxy"] == told["HTTP_PROXY"] == "http://proxy:3128"
    assert told["NO_PROXY"] == told["no_proxy"]
    direct = told["NO_PROXY"].split(",")
    assert {"localhost", ".svc", ".cluster.local", "169.254.169.254", "10.0.0.0/8"} <= set(direct)
    assert len(direct) == len(set(direct))


def test_a_proxy_for_https_alone_leaves_http_alone() -> None:
    told = environment(pod_of(OperatorConfig(proxy=Proxy(https="http://proxy:3128"))))
    assert told["HTTPS_PROXY"] == "http://proxy:3128"
    assert "HTTP_PROXY" not in told


def test_certificates_are_named_to_every_library_by_its_own_name() -> None:
    spec = pod_of(OperatorConfig(ca_bundle=CaBundle(config_map="company-ca", key="bundle.pem")))
    told = environment(spec)
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
    assert {told[name] for name in names} == {"/etc/alidade/ca/ca.crt"}
    items = [{"key": "bundle.pem", "path": "ca.crt"}]
    assert {"name": "ca", "configMap": {"name": "company-ca", "items": items}} in spec["volumes"]


def served(engine: str, config: OperatorConfig, **compute: Any) -> dict[str, Any]:
    """The spec of a replica's pod."""
    one = server(engine, compute={"nodePool": "gpu", "gpusPerWorker": 1} | compute if engine != "embedded" else {})
    made = deployment(replace(one, config=config, pool=config.node_pools[0]), 1)
    spec: dict[str, Any] = made["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("engine", ["vllm", "tgi"])
def test_servers_on_gpus_get_it_too(engine: str) -> None:
    config = OperatorConfig(node_pools=[GPUS], proxy=Proxy(http="http://proxy:3128"))
    spec = served(engine, config, credentials=[HUB, CLOUD])
    assert environment(spec)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert environment(spec)["HTTP_PROXY"] == "http://proxy:3128"
    assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} == {
        one["name"] for one in spec["volumes"]
    }


def test_the_embedded_server_fetches_nothing_and_gets_none_of_it() -> None:
    config = OperatorConfig(node_pools=[GPUS], proxy=Proxy(http="http://proxy:3128"))
    assert "HTTP_PROXY" not in environment(served("embedded", config))


# Whatever the configuration

M = TypeVar("M", bound=BaseModel)


def made(model: type[M], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[M]:
    """Models of which these fields vary; Hypothesis itself would vary those by their other names, too."""
    return st.fixed_dictionaries(fields).map(lambda found: model(**found))


names = st.sampled_from(["a", "b", "hub"])
variables = st.lists(made(CredentialVariable, name=st.sampled_from(["A", "B", "HOME"]), key=names), max_size=3)
credentials = st.lists(made(Credential, secret_name=names, variables=variables, files=st.booleans()), max_size=3)
pools = made(
    NodePool,
    name=st.just("gpu"),
    gpus_per_node=st.just(8),
    env=st.sampled_from([[], [{"name": "A", "value": "pool"}, {"name": "USER", "value": "pool"}]]),
    credentials=credentials,
    extra_resources=st.sampled_from([{}, {"rdma/hca": "1"}]),
    affinity=st.sampled_from([{}, {"nodeAffinity": {}}]),
    topology_key=st.sampled_from([None, "rack"]),
    pod_annotations=st.sampled_from([{}, {"a/b": "c"}]),
    gang_scheduling=st.sampled_from([None, GangScheduling(), GangScheduling(scheduler="scheduler-plugins-scheduler")]),
    service_account_name=st.sampled_from([None, "jobs"]),
    termination_grace_s=st.sampled_from([None, 25]),
    runtime_class_name=st.sampled_from([None, "nvidia"]),
)
configs = made(
    OperatorConfig,
    node_pools=pools.map(lambda pool: [pool]),
    proxy=st.sampled_from([None, Proxy(http="http://proxy:3128")]),
    ca_bundle=st.sampled_from([None, CaBundle(config_map="ca")]),
    image_pull_secrets=st.sampled_from([[], ["registry"]]),
)


@given(
    configs,
    made(
        Compute,
        node_pool=st.just("gpu"),
        workers=st.sampled_from([1, 2, 4]),
        gpus_per_worker=st.sampled_from([0, 1, 8]),
        queue=st.sampled_from([None, "team-a"]),
        priority_class_name=st.sampled_from([None, "high"]),
        credentials=credentials,
    ),
)
def test_no_configuration_makes_a_pod_that_is_not_restricted_or_not_whole(
    config: OperatorConfig, compute: Compute
) -> None:
    pods = [pod_of(config, **compute.to_dict()), batch_pod(config, compute)]
    pods += [served(engine, config, credentials=compute.to_dict()["credentials"]) for engine in ("vllm", "embedded")]
    for spec in pods:
        assert restricted(spec) == []
        environment(spec)
        container = spec["containers"][0]
        volumes = [volume["name"] for volume in spec["volumes"]]
        assert len(set(volumes)) == len(volumes)
        assert sorted(mount["name"] for mount in container["volumeMounts"]) == sorted(volumes)
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(set(paths)) == len(paths)
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}, "1.36", strict=True
        )


def batch_pod(config: OperatorConfig, compute: Compute) -> dict[str, Any]:
    """The spec of the pods of an Evaluation."""
    made = plan(evaluation(compute=compute.to_dict()), observed(), config=config)
    assert len(made.children) == 2, made.decisions
    spec: dict[str, Any] = made.children[1].body["spec"]["template"]["spec"]
    return spec
