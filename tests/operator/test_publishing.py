"""Models that are published and data of web servers: what pods are told, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alidade_crds.contract import CACHE_ENV, HUB_TOKEN_ENV
from alidade_crds.publishing import HubCommit, Published, RegisteredVersion
from alidade_operator.api import CONFIG_MAP, EVALUATION
from alidade_operator.config import OperatorConfig
from alidade_operator.resources.jobdocument import document_name
from tests.operator.builders import CONFIG, condition, ended_pod, job, observed, plan, success, training_job
from tests.operator.memory import MemoryCluster
from tests.operator.test_alignmentrun import EVALUATE, align, aligned, done, measure, newest_job
from tests.operator.test_stages import perplexity
from tests.operator.test_trainingjob import launched, seen

HUB = {"hub": {"repository": "org/kbqa", "secretName": "hub"}}
MLFLOW = {"mlflow": {"trackingUri": "https://mlflow.example.org", "name": "kbqa", "secretName": "mlflow"}}
FILE = {"uri": "https://example.org/train.jsonl", "sha256": "0a" * 32}


def made(config: OperatorConfig = CONFIG, **blocks: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document and the environment of a job's container."""
    children = plan(job(**blocks), observed(), config=config).children
    document = json.loads(children[0].body["data"]["job.json"])
    (container,) = children[1].body["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    return document, {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def test_a_job_that_publishes_gets_the_tokens_for_it_and_no_other_keys() -> None:
    document, environment = made(publish=HUB | MLFLOW)
    assert document["publish"]["hub"]["repository"] == "org/kbqa"
    assert environment[HUB_TOKEN_ENV] == {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}
    keys = {name: value["secretKeyRef"] for name, value in environment.items() if name.startswith("MLFLOW_")}
    assert keys == {
        f"MLFLOW_TRACKING_{name}": {"name": "mlflow", "key": f"MLFLOW_TRACKING_{name}", "optional": True}
        for name in ("TOKEN", "USERNAME", "PASSWORD")
    }


def test_a_job_that_is_tracked_gets_the_keys_for_it_and_none_stands_in_its_document() -> None:
    document, environment = made(tracking={"wandb": {"project": "kbqa", "secretName": "wandb"}})
    assert document["tracking"] == {"wandb": {"project": "kbqa", "secretName": "wandb", "offline": False}}
    key = {"secretKeyRef": {"name": "wandb", "key": "WANDB_API_KEY", "optional": True}}
    assert environment["WANDB_API_KEY"] == key, "a pod does not wait for a Secret that is not there"

    tracked = {"uri": "https://tracker.example.org", "secretName": "tracker"}
    _, environment = made(tracking={"mlflow": tracked})
    assert environment["MLFLOW_TRACKING_TOKEN"]["secretKeyRef"]["name"] == "tracker"
    _, environment = made(tracking={"mlflow": tracked}, publish=MLFLOW)
    assert environment["MLFLOW_TRACKING_TOKEN"]["secretKeyRef"]["name"] == "mlflow"
    _, environment = made(tracking={"wandb": {"project": "kbqa", "offline": True}})
    assert not any(name.startswith(("WANDB", "MLFLOW")) for name in environment)


def test_a_job_that_names_no_secret_publishes_with_the_tokens_of_its_pods() -> None:
    document, environment = made(publish={"hub": {"repository": "org/kbqa"}})
    assert document["publish"]["hub"] == {"repository": "org/kbqa", "private": True}
    assert HUB_TOKEN_ENV not in environment


def test_what_was_published_is_in_the_status_and_told() -> None:
    published = Published(
        hub=HubCommit(repository="org/kbqa", revision="0123456789abcdef", url="https://hub/org/kbqa"),
        mlflow=RegisteredVersion(name="kbqa", version="3", run_id="f00d"),
    )
    pods = (ended_pod(result=success(published=published)),)
    ended = plan(launched(), seen(training_job(state="succeeded"), pods=pods))
    assert ended.status is not None
    assert ended.status.published == published
    sentence = "It was pushed to org/kbqa at 0123456789ab and registered as version 3 of kbqa."
    assert condition(ended, "Succeeded")[2].endswith(sentence)
    assert [notice.message.endswith(sentence) for notice in ended.notices] == [True]


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (
            {"publish": {"mlflow": MLFLOW["mlflow"] | {"trackingUri": "http://mlflow.mlops.svc:5000"}}},
            "spec.publish.mlflow.trackingUri points to mlflow.mlops.svc, a name of the cluster",
        ),
        (
            {"tracking": {"mlflow": {"uri": "http://mlflow.mlops.svc:5000"}}},
            "spec.tracking.mlflow.uri points to mlflow.mlops.svc, a name of the cluster",
        ),
        (
            {"tracking": {"wandb": {"project": "a", "secretName": "a", "uri": "http://10.0.0.7"}}},
            "spec.tracking.wandb.uri points to 10.0.0.7, a private",
        ),
        ({"dataset": FILE | {"uri": "http://10.0.0.7/a.jsonl"}}, "spec.dataset.uri points to 10.0.0.7, a private"),
        (
            {"model": {"uri": "http://169.254.169.254/m.tar", "sha256": "0a" * 32}},
            "spec.model.uri points to 169.254.169.254, the metadata service",
        ),
    ],
)
def test_servers_that_pods_may_not_ask_are_refused(blocks: dict[str, Any], said: str) -> None:
    status, reason, message = condition(plan(job(**blocks), observed()), "Accepted")
    assert (status, reason) == ("False", "HostNotAllowed")
    assert message.startswith(said)


def test_a_file_of_the_web_is_told_with_its_digest_and_kept_in_the_cache() -> None:
    config = OperatorConfig(cache_claim=CONFIG.workspace_claim)
    model = {"uri": "https://example.org/base.tar.gz", "sha256": "0b" * 32}
    document, environment = made(config, dataset=FILE, model=model | {"parameters": "7B"})
    assert (document["dataset"]["uri"], document["dataset"]["sha256"]) == (FILE["uri"], FILE["sha256"])
    assert document["model"]["uri"] == f"{model['uri']}#sha256={model['sha256']}"
    assert environment[CACHE_ENV].startswith(f"/volumes/{config.cache_claim}/")


def test_a_file_of_the_web_without_its_digest_is_refused_where_no_schema_has_said_so() -> None:
    _, reason, message = condition(plan(job(dataset={"uri": FILE["uri"]}), observed()), "Accepted")
    assert reason == "InvalidSpec"
    assert "set sha256 beside it, or end it with #sha256=DIGEST" in message


def output_of(cluster: MemoryCluster) -> str:
    """Where the newest alignment job writes."""
    body = cluster.api.objects[CONFIG_MAP.kind, document_name(newest_job(cluster).rpartition("-")[0])]
    return str(json.loads(body["data"]["job.json"])["output"])


def test_a_run_that_is_to_publish_later_finds_its_model_and_says_where_it_went() -> None:
    cluster = aligned(evaluation=None, gate=None)
    assert cluster.truths()["Succeeded"] == "True"
    trained = output_of(cluster)
    first = newest_job(cluster)
    for repository in ("org/kbqa", "org/other"):
        cluster.apply(evaluation=None, gate=None, publish={"hub": {"repository": repository}})
        cluster.settle()
        assert newest_job(cluster) != first, "another job, which the trainer ends without training"
        assert output_of(cluster) == trained
        commit = HubCommit(repository=repository, revision="0123456789abcdef", url=f"https://hub/{repository}")
        align(cluster, done(published=Published(hub=commit)))
        assert cluster.status()["published"]["hub"]["repository"] == repository
        assert cluster.condition("Aligned")[2].endswith(f"It was pushed to {repository} at 0123456789ab.")
        assert cluster.truths()["Succeeded"] == "True"
        first = newest_job(cluster)


def test_what_a_gate_has_let_through_is_published_without_measuring_it_again() -> None:
    gate = [{"metric": "perplexity", "atMost": {"value": 9.5}}]
    cluster = aligned(evaluation=EVALUATE, gate=gate)
    (name,) = cluster.names(EVALUATION)
    measure(cluster, name, perplexity("sft", 10), perplexity("aligned", 9))
    assert cluster.truths()["GatePassed"] == cluster.truths()["Succeeded"] == "True"

    cluster.apply(evaluation=EVALUATE, publish=HUB)
    cluster.settle()
    commit = HubCommit(repository="org/kbqa", revision="0123456789abcdef", url="https://hub/org/kbqa")
    align(cluster, done(published=Published(hub=commit)))

    assert cluster.truths()["Succeeded"] == "True"
    assert cluster.status()["published"]["hub"]["repository"] == "org/kbqa"
    assert cluster.names(EVALUATION) == [name]
