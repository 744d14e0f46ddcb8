"""Rules about an Evaluation: what it waits for, the Job that it becomes, and what comes out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from alidade_crds.contract import EvaluationDocument, ResultDocument
from alidade_crds.evaluation import EvaluationStatus
from alidade_crds.packed import PackedResults
from alidade_crds.status import ChildRef, ModelInfo
from alidade_operator.api import EVALUATION, JOB
from alidade_operator.reconcile.plan import Plan, ProgressTarget, TrainingJob
from alidade_operator.resources.observation import EndpointView, Observed, PodView, SourceView
from tests.operator.builders import (
    MODEL,
    NOW,
    UID,
    after,
    condition,
    created,
    deleted,
    ended_pod,
    evaluated,
    evaluation,
    failure,
    measured,
    observed,
    plan,
    pod,
    training_job,
)

SFT = {"from": {"kind": "FineTuneJob", "name": "sft"}}
FROM_SFT = [{"name": "sft", "model": SFT}]
READY = SourceView(exists=True, succeeded=True, model=MODEL)
REWARDED = {
    "type": "reward",
    "dataset": "pvc://data/questions.json",
    "rewardModel": {"from": {"kind": "RewardModel", "name": "judge"}},
}
JUDGED = {
    "type": "arena",
    "dataset": "pvc://data/questions.json",
    "judge": {"url": "https://judge.example/v1", "secretName": "judge-key"},
}
ANSWERS = {"type": "generation", "dataset": "pvc://data/questions.json"}


def job_of(made: Plan) -> dict[str, Any]:
    """The Job that a plan makes."""
    return next(child.body for child in made.children if child.kind == JOB)


def document_of(made: Plan) -> EvaluationDocument:
    """What a plan tells the pods."""
    text = next(child.body["data"]["job.json"] for child in made.children if child.kind != JOB)
    return EvaluationDocument.model_validate_json(text)


def launched(**fields: Any) -> TrainingJob:
    """An Evaluation whose first attempt has been launched."""
    fresh = evaluation(**fields)
    return after(fresh, plan(fresh, observed()))


def seen(state: str, *pods: PodView, attempt: int = 1, **values: Any) -> Observed:
    """The Job of an attempt in a state, with its pods."""
    return observed(jobs=(training_job(attempt, state=state, kind=JOB),), pods=pods, document_exists=True, **values)


def status_of(made: Plan) -> EvaluationStatus:
    """The status that a plan writes."""
    assert isinstance(made.status, EvaluationStatus)
    return made.status


# From the spec to the Job


def test_a_new_evaluation_gets_its_document_and_the_job_of_its_first_attempt() -> None:
    made = plan(evaluation(), observed())
    assert created(made) == ["ConfigMap/demo-job", "Job/demo-1"]
    assert status_of(made).job_ref == ChildRef(kind="Job", name="demo-1")
    assert condition(made, "Launched") == ("True", "JobCreated", "Job demo-1 was created.")
    assert status_of(made).phase == "Starting"


def test_a_cluster_without_training_operator_evaluates() -> None:
    made = plan(evaluation(), observed(missing_kinds=frozenset({"PyTorchJob"})))
    assert created(made) == ["ConfigMap/demo-job", "Job/demo-1"]


def test_each_worker_is_a_pod_with_an_index_and_the_job_replaces_none() -> None:
    spec = job_of(plan(evaluation(compute={"workers": 3}), observed()))["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "suspend" not in spec


def test_a_queue_admits_the_job() -> None:
    made = plan(evaluation(compute={"queue": "team-a"}), observed())
    body = job_of(made)
    assert body["spec"]["suspend"] is True
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert condition(made, "Suspended") == ("True", "SuspendedByQueue", "Queue team-a has not admitted Job demo-1.")


def test_the_pods_run_the_evaluation_image_unless_the_spec_names_another() -> None:
    def container(**fields: Any) -> dict[str, Any]:
        found: dict[str, Any] = job_of(plan(evaluation(**fields), observed()))["spec"]["template"]["spec"][
            "containers"
        ][0]
        return found

    assert container()["image"] == "alidade/eval:0.1.0"
    assert container()["command"] == ["alidade-eval", "run"]
    assert container(compute={"image": "team/eval:7"})["image"] == "team/eval:7"


def test_the_pods_pass_the_restricted_pod_security_standard() -> None:
    spec = job_of(plan(evaluation(), observed()))["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = spec["containers"][0]["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True


def test_children_belong_to_the_evaluation() -> None:
    for child in plan(evaluation(), observed()).children:
        (owner,) = child.body["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Evaluation", "demo", UID, True)
        labels = child.body["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "demo"
        assert labels["app.kubernetes.io/component"] == "evaluation"


def test_keys_come_from_secrets_and_stand_in_no_document() -> None:
    fields: dict[str, Any] = {
        "models": [],
        "endpoint": {"url": "https://models.example", "secretName": "endpoint-key"},
        "suites": [ANSWERS],
    }
    made = plan(evaluation(**fields), observed())
    environment = {item["name"]: item for item in job_of(made)["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["ALIDADE_ENDPOINT_KEY"] == {
        "name": "ALIDADE_ENDPOINT_KEY",
        "valueFrom": {"secretKeyRef": {"name": "endpoint-key", "key": "api-key"}},
    }
    assert "endpoint-key" not in made.children[0].body["data"]["job.json"]


def test_the_key_of_a_judge_is_named_by_the_place_of_its_suite() -> None:
    made = plan(evaluation(suites=[ANSWERS, JUDGED]), observed())
    environment = {item["name"]: item for item in job_of(made)["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["ALIDADE_JUDGE_KEY_1"]["valueFrom"]["secretKeyRef"]["name"] == "judge-key"
    assert "ALIDADE_JUDGE_KEY_0" not in environment


def test_every_volume_that_an_address_names_is_mounted() -> None:
    fields: dict[str, Any] = {
        "models": [{"name": "base", "model": {"uri": "pvc://models/base"}}, FROM_SFT[0]],
        "suites": [
            {"type": "generation", "dataset": "configmap://questions/test.json"},
            {"type": "harness", "tasks": ["own"], "taskFolder": "pvc://tasks/own"},
            REWARDED,
        ],
        "leakCheck": {"trainingData": ["pvc://training/train.json"]},
        "output": {"uri": "pvc://results/demo"},
    }
    judge = replace(READY, model=MODEL.model_copy(update={"uri": "pvc://rewards/judge/model"}))
    found = observed(
        claims=frozenset({"alidade-workspace", "data", "models", "tasks", "training", "results", "rewards"}),
        config_maps={"questions": frozenset({"test.json"})},
        sources={("FineTuneJob", "sft"): READY, ("RewardModel", "judge"): judge},
    )
    container = job_of(plan(evaluation(**fields), found))["spec"]["template"]["spec"]["containers"][0]
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {path for path in paths if path.startswith("/volumes")} == {
        "/volumes/configmaps/questions", "/volumes/alidade-workspace", "/volumes/data", "/volumes/models",
        "/volumes/results", "/volumes/rewards", "/volumes/tasks", "/volumes/training",
    }  # fmt: skip


def test_the_document_has_every_reference_resolved() -> None:
    fields: dict[str, Any] = {"models": FROM_SFT, "suites": [REWARDED], "seed": 7, "compute": {"workers": 2}}
    rewarding = replace(READY, model=MODEL.model_copy(update={"uri": "pvc://data/judge", "digest": "sha256:judge"}))
    found = observed(sources={("FineTuneJob", "sft"): READY, ("RewardModel", "judge"): rewarding})
    document = document_of(plan(evaluation(**fields), found))
    assert [(one.name, one.model.uri, one.model.digest) for one in document.models] == [
        ("sft", MODEL.uri, MODEL.digest)
    ]
    reward = document.suites[0].reward
    assert reward is not None
    assert (reward.uri, reward.digest) == ("pvc://data/judge", "sha256:judge")
    assert document.suites[0].reward_model is None
    assert (document.baseline, document.seed, document.workers) == ("sft", 7, 2)
    assert document.output == "pvc://alidade-workspace/evaluations/demo-0f8fad5b"
    assert (document.owner.kind, document.owner.name) == ("Evaluation", "demo")


def test_the_baseline_is_the_first_model_unless_one_is_named() -> None:
    assert document_of(plan(evaluation(), observed())).baseline == "base"
    assert document_of(plan(evaluation(baseline="tuned"), observed())).baseline == "tuned"


# What stands against a launch


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        (
            {"suites": [ANSWERS, {"name": "more", **ANSWERS, "metrics": ["f1", "rouge"]}]},
            {},
            (
                "False",
                "MetricUnknown",
                "spec.suites[1].metrics names rouge, which a suite of type generation does not have. Did you mean "
                "rougeL or rouge2 or rouge1?",
            ),
        ),
        (
            {"suites": [{"type": "perplexity", "dataset": "pvc://data/a.json", "metrics": ["zzz"]}]},
            {},
            (
                "False",
                "MetricUnknown",
                "spec.suites[0].metrics names zzz, which a suite of type perplexity does not have. Did you mean "
                "perplexity or bits_per_byte?",
            ),
        ),
        (
            {"output": {"uri": "s3://bucket/demo"}, "compute": {"workers": 2}},
            {},
            (
                "False",
                "InvalidSpec",
                "spec.output.uri is s3://bucket/demo; 2 workers share their samples through the output, which a bucket "
                "cannot hold for them. Name a volume (pvc://), or set compute.workers: 1.",
            ),
        ),
        (
            {"suites": [{"type": "generation", "dataset": "pvc://gone/questions.json"}]},
            {},
            ("False", "VolumeMissing", "spec.suites[0].dataset"),
        ),
        (
            {"suites": [{"type": "generation", "dataset": "configmap://gone/questions.json"}]},
            {},
            ("False", "ConfigMapMissing", "spec.suites[0].dataset"),
        ),
        (
            {"leakCheck": {"trainingData": ["pvc://data/a.json", "file:///data/b.json"]}},
            {},
            ("False", "FileUriNotAllowed", "spec.leakCheck.trainingData[1] is file:///data/b.json"),
        ),
        (
            {"suites": [{"type": "harness", "tasks": ["own"], "taskFolder": "pvc://gone/tasks"}]},
            {},
            ("False", "VolumeMissing", "spec.suites[0].taskFolder"),
        ),
        ({"compute": {"nodePool": "none"}}, {}, ("False", "NodePoolUnknown", "spec.compute.nodePool is none")),
        ({}, {"claims": frozenset({"data"})}, ("False", "WorkspaceMissing", "Namespace team-a has no claim")),
        (
            {"models": FROM_SFT},
            {"sources": {("FineTuneJob", "sft"): SourceView(exists=False)}},
            (
                "Unknown",
                "ReferencePending",
                "spec.models[0].model",
            ),
        ),
        (
            {"models": FROM_SFT},
            {"sources": {("FineTuneJob", "sft"): SourceView(exists=True)}},
            (
                "Unknown",
                "ReferencePending",
                "Waiting for FineTuneJob sft to succeed.",
            ),
        ),
        (
            {"models": FROM_SFT},
            {"sources": {("FineTuneJob", "sft"): SourceView(exists=True, failed=True)}},
            (
                "False",
                "ReferenceFailed",
                "spec.models[0].model",
            ),
        ),
        (
            {"suites": [REWARDED]},
            {"sources": {("RewardModel", "judge"): SourceView(exists=False)}},
            ("Unknown", "ReferencePending", "spec.suites[0].rewardModel"),
        ),
        (
            {"models": FROM_SFT},
            {
                "sources": {
                    ("FineTuneJob", "sft"): replace(
                        READY,
                        model=ModelInfo(
                            uri="pvc://gone/model",
                            digest="sha256:abc",
                            parameters=1,
                            trainable_parameters=1,
                        ),
                    )
                }
            },
            ("False", "VolumeMissing", "the model of FineTuneJob sft"),
        ),
        (
            {"models": FROM_SFT},
            {"sources": {("FineTuneJob", "sft"): READY}, "source_circle": ("Evaluation/demo", "AlignmentRun/a")},
            ("False", "ReferenceCycle", "spec names resources in a circle: Evaluation/demo → AlignmentRun/a."),
        ),
        (
            {"models": [], "endpoint": {"modelServe": "chat"}},
            {"endpoint": EndpointView(exists=False)},
            ("Unknown", "ReferencePending", "spec.endpoint.modelServe names chat, which does not exist yet."),
        ),
        (
            {"models": [], "endpoint": {"modelServe": "chat"}},
            {"endpoint": EndpointView(exists=True)},
            ("Unknown", "ReferencePending", "spec.endpoint.modelServe names chat, which does not answer yet."),
        ),
    ],
)
def test_what_is_missing_is_named_by_its_field(
    fields: dict[str, Any], values: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    made = plan(evaluation(**fields), observed(**values))
    status, reason, message = condition(made, "Accepted")
    assert (status, reason) == expected[:2]
    assert expected[2] in message
    assert not made.children


@pytest.mark.parametrize("suite_type", ["custom", "harness"])
def test_metrics_that_only_the_job_knows_are_let_through(suite_type: str) -> None:
    suite = {"type": suite_type, "metrics": ["anything"]}
    suite |= (
        {"entryPoint": "mine:score", "dataset": "pvc://data/a.json"} if suite_type == "custom" else {"tasks": ["own"]}
    )
    assert created(plan(evaluation(suites=[suite]), observed())) == ["ConfigMap/demo-job", "Job/demo-1"]


def test_a_served_model_is_asked_at_its_address() -> None:
    fields: dict[str, Any] = {"models": [], "endpoint": {"modelServe": "chat", "name": "served"}}
    made = plan(evaluation(**fields), observed(endpoint=EndpointView(exists=True, url="http://chat.team-a:8000")))
    endpoint = document_of(made).endpoint
    assert endpoint is not None
    assert (endpoint.name, endpoint.url) == ("served", "http://chat.team-a:8000")
    told = {"name": "ALIDADE_ENDPOINT_URL", "value": "http://chat.team-a:8000"}
    assert told in made.children[1].body["spec"]["template"]["spec"]["containers"][0]["env"]
    assert condition(made, "Fits")[0] == "True"


def test_a_model_larger_than_a_gpu_is_refused_with_the_number() -> None:
    large = [{"name": "large", "model": {"uri": "pvc://data/large", "parameters": "70B"}}]
    made = plan(evaluation(models=large, compute={"nodePool": "a100-80gb", "gpusPerWorker": 1}), observed())
    status, reason, message = condition(made, "Fits")
    assert (status, reason) == ("False", "ExceedsMemory")
    assert message.startswith("large with 70.0B parameters in bf16 needs about ")
    assert "there are GPUs of 80 GiB" in message
    assert not made.children


def test_the_largest_model_counts_and_not_their_sum() -> None:
    models = [
        {"name": f"m{size}", "model": {"uri": f"pvc://data/{size}", "parameters": f"{size}B"}} for size in (13, 13, 7)
    ]
    made = plan(evaluation(models=models, compute={"nodePool": "a100-80gb", "gpusPerWorker": 1}), observed())
    assert condition(made, "Fits")[:2] == ("True", "WithinMemory")


def test_a_reward_model_of_unknown_size_leaves_the_memory_open() -> None:
    suite = {**REWARDED, "rewardModel": {"uri": "pvc://data/judge"}}
    models = [{"name": "base", "model": {"uri": "pvc://data/base", "parameters": "7B"}}]
    made = plan(evaluation(models=models, suites=[suite]), observed())
    assert condition(made, "Fits")[:2] == ("Unknown", "SizeUnknown")
    assert created(made) == ["ConfigMap/demo-job", "Job/demo-1"], "what is not known does not hold a launch up"


# From the Job to the results


def test_a_running_evaluation_is_asked_for_progress_at_its_first_pod() -> None:
    first, second = pod(), pod(worker=0, ip="10.0.0.8")
    made = plan(launched(), seen("running", second, first))
    assert condition(made, "Launched") == ("True", "Running", "Job demo-1 is running.")
    assert made.progress == ProgressTarget(first.uid, "10.0.0.7")


def test_the_numbers_of_the_first_pod_become_the_status() -> None:
    result = evaluated(measured("base"), measured("tuned", "better"), measured("tuned", "worse", metric="bleu"))
    made = plan(launched(), seen("succeeded", ended_pod(result=result)))
    status = status_of(made)
    assert [(one.model, one.metric, one.value, one.verdict) for one in status.results] == [
        ("base", "f1", 0.5, None), ("tuned", "f1", 0.5, "better"), ("tuned", "bleu", 0.5, "worse"),
    ]  # fmt: skip
    assert status.verdict == "tuned: 1 better, 1 worse"
    assert status.omitted is None
    assert status.report_uri == result.report_uri
    assert status.model is None
    assert condition(made, "Succeeded")[:2] == ("True", "Completed")
    assert condition(made, "Launched") == ("True", "Completed", "Job demo-1 has succeeded.")
    assert status.phase == "Succeeded"


def test_numbers_that_found_no_room_are_counted_and_told() -> None:
    packed = PackedResults.of([measured("base")], omitted=12)
    made = plan(launched(), seen("succeeded", ended_pod(result=evaluated(evaluation=packed))))
    assert status_of(made).omitted == 12
    assert "12 more are in results.json" in condition(made, "Succeeded")[2]


def test_an_evaluation_of_one_model_has_no_verdict() -> None:
    made = plan(launched(), seen("succeeded", ended_pod(result=evaluated(measured("base")))))
    assert status_of(made).verdict is None
    assert condition(made, "Succeeded")[0] == "True"


def test_verdicts_of_many_models_stay_within_the_status() -> None:
    results = [measured(f"model-with-a-long-name-{number}", "better") for number in range(30)]
    verdict = status_of(plan(launched(), seen("succeeded", ended_pod(result=evaluated(*results))))).verdict
    assert verdict is not None
    assert len(verdict) <= 256
    assert verdict.startswith("model-with-a-long-name-0: 1 better; ")


def test_a_finished_evaluation_stays_as_it_is() -> None:
    ended = seen("succeeded", ended_pod(result=evaluated()))
    done = after(launched(), plan(launched(), ended))
    assert plan(done, ended) == Plan()
    assert plan(done, observed()) == Plan(), "nor is it launched again when its Job is gone"


@pytest.mark.parametrize(
    "result",
    [
        evaluated(evaluation=None),
        evaluated(evaluation=PackedResults(rows=1, packed="no results")),
        ResultDocument(outcome="succeeded", model=MODEL),
    ],
    ids=["nothing", "garbage", "a model"],
)
def test_an_end_without_readable_numbers_is_tried_again(result: ResultDocument) -> None:
    text = result.model_dump_json(by_alias=True, exclude_none=True)
    made = plan(launched(), seen("succeeded", ended_pod(message_text=text)))
    last = status_of(made).last_failure
    assert last is not None
    assert last.reason == "ResultLost"
    assert condition(made, "Succeeded")[0] != "True"
    assert condition(made, "Failed")[0] == "False"


def test_a_failed_pod_of_any_index_fails_the_attempt_with_its_words() -> None:
    stopped = ended_pod(exit_code=143, result=ResultDocument(outcome="terminated"))
    broken = ended_pod(
        worker=0, exit_code=1, result=failure("DataMalformed", message="questions.json line 3: no answer.")
    )
    made = plan(launched(), seen("failed", stopped, broken))
    assert condition(made, "Failed") == ("True", "DataMalformed", "questions.json line 3: no answer.")
    assert not made.children


def test_a_passing_failure_is_followed_by_the_next_attempt_with_the_same_document() -> None:
    lost = seen("failed", ended_pod(exit_code=75, result=failure("EndpointUnavailable", retryable=True)))
    told = after(launched(), plan(launched(), lost))
    assert status_of(plan(launched(), lost)).last_failure is not None
    made = plan(told, lost, now=NOW + timedelta(hours=1))
    assert created(made) == ["Job/demo-2"], "the pods of every attempt are told the same"


def test_attempts_end_at_the_limit() -> None:
    lost = seen("failed", ended_pod(exit_code=75, result=failure("DiskFull", retryable=True, message="No space.")))
    made = plan(launched(backoffLimit=0), lost)
    assert condition(made, "Failed") == (
        "True",
        "BackoffLimitExceeded",
        "The only attempt failed (spec.backoffLimit is 0); the last with DiskFull: No space.",
    )


def test_suspending_deletes_the_job_and_resuming_makes_the_same_attempt_again() -> None:
    running = seen("running", pod())
    resource = launched()
    assert resource.spec is not None
    paused = replace(resource, spec=resource.spec.model_copy(update={"suspend": True}))
    made = plan(paused, running)
    assert deleted(made) == ["Job/demo-1"]
    assert condition(made, "Suspended")[:2] == ("True", "SuspendedByUser")
    resumed = replace(after(paused, made), spec=resource.spec)
    assert created(plan(resumed, observed(document_exists=True))) == ["Job/demo-1"]


def test_a_job_taken_back_by_its_queue_says_so() -> None:
    resource = launched(compute={"queue": "team-a"})
    made = plan(resource, seen("running", pod()))
    back = plan(after(resource, made), seen("suspended"))
    assert condition(back, "Suspended") == ("True", "SuspendedByQueue", "Queue team-a has not admitted Job demo-1.")


def test_a_job_of_something_else_under_its_name_is_waited_for() -> None:
    foreign = training_job(1, owned=False, kind=JOB)
    made = plan(evaluation(), observed(jobs=(foreign,)))
    assert created(made) == []
    assert condition(made, "Launched") == (
        "False",
        "Waiting",
        "Job demo-1 belongs to an older resource, or to something else; waiting for it to go.",
    )


def test_the_name_leaves_room_for_what_kubernetes_adds_to_pods() -> None:
    made = plan(evaluation("e" * 60), observed())
    assert condition(made, "Accepted")[:2] == ("False", "NameTooLong")


def test_an_evaluation_goes_when_its_time_has_come() -> None:
    resource = launched(ttlSecondsAfterFinished=0)
    done = after(resource, plan(resource, seen("succeeded", ended_pod(result=evaluated()))))
    assert deleted(plan(done, seen("succeeded"))) == [f"{EVALUATION.kind}/demo"]
