"""Rules about what is accepted: (spec, observed) -> (reason, exact message)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from alidade_crds.status import JobStatus
from alidade_operator.api import FINE_TUNE_JOB
from alidade_operator.config import GangScheduling
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.resources.observation import SourceView
from tests.operator.builders import (
    CONFIG,
    INIT,
    MODEL,
    NOW,
    after,
    condition,
    created,
    job,
    observed,
    plan,
    training_job,
)

FROM_BASE: dict[str, Any] = {"model": {"from": {"kind": "FineTuneJob", "name": "base"}}}


@pytest.mark.parametrize(
    ("blocks", "seen", "status", "reason", "message"),
    [
        (
            {"compute": {"nodePool": "h100"}},
            {},
            "False",
            "NodePoolUnknown",
            "spec.compute.nodePool is h100; the configured pools are local, a100-80gb. "
            "Name one of them, or have the pool added to the operator's configuration.",
        ),
        (
            {"compute": {"nodePool": "a100-80gb", "gpusPerWorker": 16}},
            {},
            "False",
            "TooManyGpus",
            "spec.compute.gpusPerWorker is 16; pool a100-80gb has nodes of 8. Use 2 workers of 8.",
        ),
        (
            {"compute": {"gpusPerWorker": 1}},
            {},
            "False",
            "TooManyGpus",
            "spec.compute.gpusPerWorker is 1; pool local has no GPUs. "
            "Set it to 0 to train on the CPU, or name a pool with GPUs.",
        ),
        (
            {"compute": {"nodePool": "a100-80gb", "gpusPerWorker": 2, "processesPerWorker": 4}},
            {},
            "False",
            "InvalidSpec",
            "spec.compute.processesPerWorker is 4; a worker has 2 GPUs. Set it to 2 or less, or leave it out.",
        ),
        (
            {"compute": {"nodePool": "a100-80gb", "workers": 3, "gpusPerWorker": 8}},
            {},
            "False",
            "InvalidSpec",
            "spec.training.globalBatchSize is 64; it must be a multiple of the 24 training processes (3 workers of 8), "
            "such as 72.",
        ),
        (
            {"training": {"globalBatchSize": 64, "microBatchSize": 12}, "compute": {"workers": 2}},
            {},
            "False",
            "InvalidSpec",
            "spec.training.microBatchSize is 12; it must divide the 32 sequences of each process "
            "(spec.training.globalBatchSize of 64 over 2 processes). Set it to 8.",
        ),
        (
            {},
            {"claims": frozenset({"data"})},
            "False",
            "WorkspaceMissing",
            "Namespace team-a has no claim alidade-workspace, where outputs go. "
            "Create the PersistentVolumeClaim, or set spec.output.uri.",
        ),
        (
            {"output": {"uri": "pvc://models/demo"}},
            {},
            "False",
            "VolumeMissing",
            "spec.output.uri names claim models, which namespace team-a does not have. "
            "Create the PersistentVolumeClaim; the job goes on by itself.",
        ),
        (
            {"output": {"uri": "pvc://data"}},
            {},
            "False",
            "InvalidSpec",
            "spec.output.uri is pvc://data, the root of the volume. Name a folder of its own: pvc://data/NAME.",
        ),
        (
            {"dataset": {"uri": "pvc://corpus/train.json"}},
            {},
            "False",
            "VolumeMissing",
            "spec.dataset.uri names claim corpus, which namespace team-a does not have. "
            "Create the PersistentVolumeClaim; the job goes on by itself.",
        ),
        (
            {"dataset": {"uri": "pvc://data/a", "mix": [{"uri": "pvc://more/b", "weight": 1}]}},
            {},
            "False",
            "VolumeMissing",
            "spec.dataset.mix[0].uri names claim more, which namespace team-a does not have. "
            "Create the PersistentVolumeClaim; the job goes on by itself.",
        ),
        (
            {"dataset": {"uri": "configmap://sums/train.json"}},
            {"config_maps": {"sums": None}},
            "False",
            "ConfigMapMissing",
            "spec.dataset.uri names ConfigMap sums, which namespace team-a does not have. "
            "Create it; the job goes on by itself.",
        ),
        (
            {"dataset": {"uri": "configmap://sums/train.json"}},
            {"config_maps": {"sums": frozenset({"test.json", "all.json"})}},
            "False",
            "ConfigMapMissing",
            "spec.dataset.uri names key train.json of ConfigMap sums, which has all.json, test.json. "
            "Add the key; the job goes on by itself.",
        ),
        (
            {"dataset": {"uri": "file:///data/train.json"}},
            {},
            "False",
            "FileUriNotAllowed",
            "spec.dataset.uri is file:///data/train.json; file:// addresses work on the local cluster only. "
            "Put the data on a volume and write pvc://CLAIM/PATH.",
        ),
        (
            {"dataset": {"uri": "pvc://data/../train.json"}},
            {},
            "False",
            "InvalidSpec",
            "spec.dataset.uri: 'pvc://data/../train.json' climbs out of its volume with '..'; "
            "write the path without it.",
        ),
        (
            {},
            {"missing_kinds": frozenset({"PyTorchJob"})},
            "False",
            "TrainingOperatorMissing",
            "The cluster has no PyTorchJob (kubeflow.org/v1). Install the Kubeflow training operator 1.9.",
        ),
        (
            FROM_BASE,
            {"source": SourceView(exists=False)},
            "Unknown",
            "ReferencePending",
            "spec.model.from names FineTuneJob base, which does not exist yet.",
        ),
        (
            FROM_BASE,
            {"source": SourceView(exists=True)},
            "Unknown",
            "ReferencePending",
            "Waiting for FineTuneJob base to succeed.",
        ),
        (
            FROM_BASE,
            {"source": SourceView(exists=True, failed=True)},
            "False",
            "ReferenceFailed",
            "spec.model.from names FineTuneJob base, which has failed. "
            "Mend it under the same name, and the job goes on by itself.",
        ),
        (
            FROM_BASE,
            {
                "source": SourceView(exists=True),
                "source_circle": ("FineTuneJob/demo", "FineTuneJob/base", "FineTuneJob/demo"),
            },
            "False",
            "ReferenceCycle",
            "spec.model.from names FineTuneJob base, and so on in a circle: FineTuneJob/demo → FineTuneJob/base → "
            "FineTuneJob/demo. Let one of them start from spec.model.uri.",
        ),
        (
            FROM_BASE,
            {
                "source": SourceView(
                    exists=True, succeeded=True, model=MODEL.model_copy(update={"uri": "pvc://gone/m"})
                ),
            },
            "False",
            "VolumeMissing",
            "the model of FineTuneJob base names claim gone, which namespace team-a does not have. "
            "Create the PersistentVolumeClaim; the job goes on by itself.",
        ),
    ],
)
def test_what_cannot_be_launched_is_refused_with_a_sentence(
    blocks: dict[str, Any], seen: dict[str, Any], status: str, reason: str, message: str
) -> None:
    made = plan(job(**blocks), observed(**seen))
    assert condition(made, "Accepted") == (status, reason, message)
    assert condition(made, "Launched")[:2] == ("False", reason)
    assert not made.children
    assert made.status is not None
    assert made.status.phase == "Waiting"


@pytest.mark.parametrize(("name", "workers", "longest"), [("a", 1, 49), ("a", 2, 49), ("a", 12, 48)])
def test_a_name_is_refused_from_the_character_on_that_breaks_pod_names(name: str, workers: int, longest: int) -> None:
    blocks = {"compute": {"workers": workers}, "training": {"globalBatchSize": workers}}
    at_the_limit = name * longest
    suffix = f"-9999-worker-{workers - 2}" if workers > 1 else "-9999-master-0"
    assert len(at_the_limit + suffix) == 63
    assert condition(plan(job(at_the_limit, **blocks), observed()), "Accepted")[0] == "True"
    status, reason, message = condition(plan(job(name * (longest + 1), **blocks), observed()), "Accepted")
    assert (status, reason) == ("False", "NameTooLong")
    assert f"metadata.name has {longest + 1} characters" in message
    assert f"at most {longest} leave" in message


@pytest.mark.parametrize("name", ["7b-sft", "sft.v2"])
def test_a_name_that_no_service_can_have_is_refused(name: str) -> None:
    assert condition(plan(job(name), observed()), "Accepted") == (
        "False",
        "InvalidSpec",
        f"metadata.name is {name}; pods and services are named after it, so it must start with a letter and hold only "
        "lower-case letters, digits and '-'. Apply it under another name.",
    )


def test_a_spec_that_cannot_be_read_is_refused_naming_the_field() -> None:
    body = {
        "metadata": {"name": "demo", "namespace": "team-a", "uid": "u", "generation": 1},
        "spec": {"model": INIT, "dataset": {"uri": "pvc://data/x"}, "training": {"epochs": "many"}},
    }
    status, reason, message = condition(plan(TrainingJob.parse(FINE_TUNE_JOB, body), observed()), "Accepted")
    assert (status, reason) == ("False", "InvalidSpec")
    assert message.startswith("spec.training.epochs: ")


def test_fewer_workers_go_on_only_where_pods_are_scheduled_one_by_one() -> None:
    spread = job(compute={"workers": 2}, elastic={"minWorkers": 1})
    gangs = [pool.model_copy(update={"gang_scheduling": GangScheduling()}) for pool in CONFIG.node_pools]
    refused = plan(spread, observed(), config=CONFIG.model_copy(update={"node_pools": gangs}))
    assert condition(refused, "Accepted")[1:] == (
        "InvalidSpec",
        f"spec.elastic is set; pool {gangs[0].name} schedules gangs, of which all pods find nodes or none. Leave it "
        "out, or name another pool.",
    )
    assert condition(plan(spread, observed()), "Accepted")[0] == "True"


def test_a_refusal_ends_when_its_cause_is_lifted() -> None:
    refused = plan(job(dataset={"uri": "pvc://corpus/x"}), observed())
    assert refused.status is not None
    mended = plan(
        job(dataset={"uri": "pvc://corpus/x"}, status=refused.status),
        observed(claims=frozenset({"corpus", "alidade-workspace"})),
    )
    assert condition(mended, "Accepted")[:2] == ("True", "Valid")
    assert created(mended) == ["ConfigMap/demo-job", "PyTorchJob/demo-1"]


def test_file_addresses_are_accepted_where_the_configuration_allows_them() -> None:
    allowing = CONFIG.model_copy(update={"allow_file_uris": True})
    made = plan(job(dataset={"uri": "file:///data/train.json"}), observed(), config=allowing)
    assert condition(made, "Accepted")[0] == "True"


@pytest.mark.parametrize(("missing_s", "look_again_s"), [(0, 1), (2, 1), (20, 5), (3600, 60)])
def test_a_missing_config_map_is_looked_for_soon_at_first_and_then_less_often(
    missing_s: float, look_again_s: float
) -> None:
    waiting, seen = job(dataset={"uri": "configmap://sums/a"}), observed(config_maps={"sums": None})
    refused = after(waiting, plan(waiting, seen))
    assert plan(refused, seen, now=NOW + timedelta(seconds=missing_s)).look_again_s == look_again_s


def test_a_refused_resource_is_told_once() -> None:
    first = plan(job(compute={"nodePool": "h100"}), observed())
    assert [(notice.type, notice.reason) for notice in first.notices] == [("Warning", "NodePoolUnknown")]
    assert len(first.decisions) == 1
    again = plan(job(compute={"nodePool": "h100"}, status=first.status), observed())
    assert again.status is None
    assert not again.notices
    assert not again.decisions


def test_the_model_of_a_finished_source_is_taken_with_its_digest() -> None:
    source = SourceView(exists=True, succeeded=True, model=MODEL)
    made = plan(job(**FROM_BASE), observed(source=source))
    document = made.children[0].body["data"]["job.json"]
    assert f'"uri": "{MODEL.uri}"' in document
    assert f'"digest": "{MODEL.digest}"' in document


def test_a_foreign_condition_is_neither_lost_nor_ours() -> None:
    foreign = {
        "type": "Archived",
        "status": "True",
        "reason": "Nightly",
        "message": "",
        "lastTransitionTime": "2026-11-21T11:00:00Z",
    }
    status = JobStatus.model_validate({"conditions": [foreign]})
    made = plan(job(status=status), observed())
    assert made.status is not None
    assert "Archived" not in [item.type for item in made.status.conditions]
    settled = made.status.model_copy(update={"conditions": [*made.status.conditions, *status.conditions]})
    seen = observed(jobs=(training_job(state="waiting"),), document_exists=True)
    assert plan(job(status=settled), seen).status is None


def test_a_claim_for_what_is_fetched_has_to_be_there() -> None:
    config = CONFIG.model_copy(update={"cache_claim": "cache"})
    remote = job(model={"uri": "hf://org/base", "parameters": "1M"}, method="sft")
    status, reason, message = condition(plan(remote, observed(), config=config), "Accepted")
    assert (status, reason) == ("False", "VolumeMissing")
    assert message == (
        "spec.model.uri is hf://org/base; what is fetched is kept on claim cache, which namespace team-a does not "
        "have. Create the PersistentVolumeClaim; the job goes on by itself."
    )
    there = observed(claims=frozenset({"alidade-workspace", "data", "cache"}))
    assert condition(plan(remote, there, config=config), "Accepted")[0] == "True"
