"""Where pods go: gangs, nearness, spread, queues, grace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alidade_operator.config import GangScheduling, NodePool, OperatorConfig
from alidade_operator.resources.serving import CANARY, deployment
from tests.operator.builders import evaluation, job, observed, plan
from tests.operator.test_engines import server

VOLCANO = GangScheduling(queue="research")
PLUGINS = GangScheduling(scheduler="scheduler-plugins-scheduler", timeout_s=300)


def pool(**fields: Any) -> OperatorConfig:
    """A configuration of one pool of nodes with 8 GPUs."""
    return OperatorConfig(node_pools=[NodePool(name="a100", gpus_per_node=8, **fields)])


def pytorch_job(config: OperatorConfig, **compute: Any) -> dict[str, Any]:
    """The PyTorchJob of two workers of 8 GPUs."""
    blocks = {"workers": 2, "gpusPerWorker": 8} | compute
    made = plan(job(compute=blocks, training={"globalBatchSize": 64}), observed(), config=config)
    assert len(made.children) == 2, made.decisions
    return made.children[1].body


def batch_job(config: OperatorConfig, **compute: Any) -> dict[str, Any]:
    """The Job of an evaluation by four pods."""
    made = plan(evaluation(compute={"workers": 4, "gpusPerWorker": 1} | compute), observed(), config=config)
    assert len(made.children) == 2, made.decisions
    return made.children[1].body


def templates(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a PyTorchJob."""
    return [replica["template"] for replica in body["spec"]["pytorchReplicaSpecs"].values()]


def test_without_a_gang_scheduler_nothing_is_said_of_one() -> None:
    body = pytorch_job(pool())
    assert body["spec"]["runPolicy"] == {"cleanPodPolicy": "Running"}
    assert all("schedulerName" not in template["spec"] for template in templates(body))
    assert all("annotations" not in template["metadata"] for template in templates(body))


@pytest.mark.parametrize(
    ("gang", "policy"),
    [
        (VOLCANO, {"minAvailable": 2, "queue": "research", "priorityClass": "high"}),
        (PLUGINS, {"minAvailable": 2, "priorityClass": "high", "scheduleTimeoutSeconds": 300}),
    ],
)
def test_the_training_operator_is_told_to_make_a_gang_of_all_workers(
    gang: GangScheduling, policy: dict[str, Any]
) -> None:
    body = pytorch_job(pool(gang_scheduling=gang), priorityClassName="high")
    assert body["spec"]["runPolicy"]["schedulingPolicy"] == policy
    assert {template["spec"]["schedulerName"] for template in templates(body)} == {gang.scheduler}


def test_volcano_makes_a_gang_of_a_jobs_pods_by_its_annotations() -> None:
    body = batch_job(pool(gang_scheduling=VOLCANO))
    assert body["metadata"]["annotations"]["scheduling.volcano.sh/group-min-member"] == "4"
    template = body["spec"]["template"]
    assert template["metadata"]["annotations"] == {"scheduling.volcano.sh/queue-name": "research"}
    assert template["spec"]["schedulerName"] == "volcano"


def test_scheduler_plugins_schedule_a_jobs_pods_one_by_one() -> None:
    body = batch_job(pool(gang_scheduling=PLUGINS))
    assert not [name for name in body["metadata"]["annotations"] if "volcano" in name]
    assert body["spec"]["template"]["spec"]["schedulerName"] == "scheduler-plugins-scheduler"


def test_workers_of_a_job_prefer_to_be_near_one_another_beside_what_the_administrator_wants() -> None:
    wanted: dict[str, Any] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    }
    for template in templates(pytorch_job(pool(topology_key="rack", affinity=wanted))):
        affinity = template["spec"]["affinity"]
        assert affinity["nodeAffinity"] == wanted["nodeAffinity"]
        [preference] = affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert preference["podAffinityTerm"]["topologyKey"] == "rack"
        selected = preference["podAffinityTerm"]["labelSelector"]["matchLabels"]
        assert selected.items() <= template["metadata"]["labels"].items()
        assert selected["alidade.dev/attempt"] == "1", "not near what an older attempt has left"


def test_the_configuration_stays_as_it_is_when_a_job_is_made_of_it() -> None:
    config = pool(topology_key="rack", affinity={"podAffinity": {}})
    before = config.model_copy(deep=True)
    assert pytorch_job(config) == pytorch_job(config)
    assert config == before


def test_only_several_workers_take_what_is_between_them() -> None:
    config = pool(extra_resources={"rdma/hca": "8"}, topology_key="rack")
    many, one = templates(pytorch_job(config)), templates(pytorch_job(config, workers=1))
    for template in many:
        resources = template["spec"]["containers"][0]["resources"]
        assert resources["limits"]["rdma/hca"] == resources["requests"]["rdma/hca"] == "8"
    assert "rdma/hca" not in one[0]["spec"]["containers"][0]["resources"]["limits"]
    assert "affinity" not in one[0]["spec"]


def test_a_spot_pool_gives_the_grace_that_its_notice_leaves() -> None:
    assert {
        t["spec"]["terminationGracePeriodSeconds"] for t in templates(pytorch_job(pool(termination_grace_s=25)))
    } == {25}
    for config, grace_s in ((pool(termination_grace_s=25), 25), (pool(), 120)):
        for template in templates(pytorch_job(config)):
            assert template["spec"]["terminationGracePeriodSeconds"] == grace_s


def test_annotations_and_identity_of_a_pool() -> None:
    annotations = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    config = pool(pod_annotations=annotations, service_account_name="jobs")
    for template in templates(pytorch_job(config)):
        assert template["metadata"]["annotations"] == annotations
        assert template["spec"]["serviceAccountName"] == "jobs"
        assert template["spec"]["automountServiceAccountToken"] is False


def test_replicas_spread_over_zones_and_nodes_each_revision_for_itself() -> None:
    for component in ("server", CANARY):
        made = deployment(server("vllm"), 2, component)
        constraints = made["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [one["topologyKey"] for one in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for one in constraints:
            assert one["labelSelector"] == made["spec"]["selector"]
            assert (one["maxSkew"], one["whenUnsatisfiable"]) == (1, "ScheduleAnyway")
            assert one["matchLabelKeys"] == ["pod-template-hash"]


def test_a_queue_admits_replicas_and_changes_nothing_else_of_them() -> None:
    plain, queued = server("vllm"), server("vllm")
    compute = queued.spec.compute.model_copy(update={"queue": "team-a"})
    queued = replace(queued, spec=queued.spec.model_copy(update={"compute": compute}))
    made, without = deployment(queued, 2), deployment(plain, 2)
    assert made["metadata"]["labels"].pop("kueue.x-k8s.io/queue-name") == "team-a"
    for body in (made, without):
        del body["metadata"]["annotations"]["alidade.dev/applied"]
    assert made == without
