"""Admission: what is refused, what is only warned of, and that it says what the condition Accepted says."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alidade_operator import admission
from alidade_operator.admission import MalformedReviewError, review
from alidade_operator.api import (
    ALIGNMENT_RUN,
    CLAIM,
    EVALUATION,
    FINE_TUNE_JOB,
    MODEL_SERVE,
    PARENT_KINDS,
    REWARD_MODEL,
    ApiError,
    JsonObject,
    Kind,
)
from alidade_operator.config import OperatorConfig
from alidade_operator.controller import Controller
from tests.operator.builders import CONFIG, INIT
from tests.operator.memory import NAMESPACE, MemoryApi, drive, run_spec

BASE = {"method": "pretrain", "model": INIT, "dataset": {"uri": "pvc://data/a.json"}}
FROM = {"from": {"kind": "FineTuneJob", "name": "base"}}
TUNED = BASE | {"method": "sft", "model": FROM}
MEASURED: JsonObject = {
    "models": [{"name": "base", "model": FROM}],
    "suites": [{"type": "generation", "dataset": "pvc://data/q.json"}],
}
SERVED = {"model": FROM}
MODEL = {"uri": "pvc://data/model", "digest": "sha256:a", "parameters": 70_000_000_000, "trainableParameters": 1}
TRUE = {"status": "True", "reason": "Completed", "message": "", "lastTransitionTime": "2026-11-21T12:00:00Z"}
SUCCEEDED = {"phase": "Succeeded", "model": MODEL, "conditions": [{"type": "Succeeded", **TRUE}]}


def resource(kind: Kind, name: str, spec: JsonObject | None = None, **more: Any) -> JsonObject:
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-of-{name}", "generation": 1, "resourceVersion": "1"}
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    return copy.deepcopy(body | ({"spec": spec} if spec is not None else {}) | more)


class Place:
    """An operator that knows of some objects."""

    def __init__(self, *objects: JsonObject, config: OperatorConfig = CONFIG) -> None:
        self.controller = Controller(config, MemoryApi())
        claims = [resource(CLAIM, name) for name in ("alidade-workspace", "data")]
        for body in (*claims, *objects):
            self.add(body)

    def add(self, body: JsonObject) -> None:
        kind = next(kind for kind in (CLAIM, *PARENT_KINDS) if kind.kind == body["kind"])
        self.controller.take_event(kind, "ADDED", body)

    def ask(self, new: JsonObject, old: JsonObject | None = None, **request: Any) -> JsonObject:
        """The response to the review of a creation, or of a change."""
        kind = {"group": "alidade.dev", "version": "v1alpha1", "kind": new["kind"]}
        asked = {
            "uid": "a-review", "kind": kind, "operation": "UPDATE" if old else "CREATE",
            "object": new, "oldObject": old, "name": new["metadata"].get("name"), "namespace": NAMESPACE,
        } | request  # fmt: skip
        answer = asyncio.run(review({"request": asked}, self.controller))
        assert answer["response"]["uid"] == "a-review"
        response: JsonObject = answer["response"]
        return response

    def outcome(self, new: JsonObject, old: JsonObject | None = None, **request: Any) -> tuple[str, str]:
        """allowed, warned or denied, and the words."""
        response = self.ask(new, old, **request)
        if not response["allowed"]:
            assert response["status"]["code"] == 422
            return "denied", response["status"]["message"]
        warnings = response.get("warnings", [])
        return ("warned", " ".join(warnings)) if warnings else ("allowed", "")


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        (FINE_TUNE_JOB, {"compute": {"nodePool": "h100"}}, "NodePoolUnknown: spec.compute.nodePool is h100"),
        (FINE_TUNE_JOB, {"compute": {"nodePool": "a100-80gb", "gpusPerWorker": 16}}, "TooManyGpus: "),
        (FINE_TUNE_JOB, {"model": {"uri": "file:///a"}}, "FileUriNotAllowed: spec.model.uri is file:///a"),
        (FINE_TUNE_JOB, {"tracking": {"mlflow": {"uri": "http://127.0.0.1"}}}, "HostNotAllowed: "),
        (
            FINE_TUNE_JOB,
            {"model": {"uri": "hf://org/a-70b"}, "compute": {"nodePool": "a100-80gb", "gpusPerWorker": 1}},
            "ExceedsMemory: ",
        ),
        (EVALUATION, {"endpoint": {"url": "http://169.254.169.254"}, "models": []}, "HostNotAllowed: spec.endpoint"),
        (MODEL_SERVE, {"engine": "vllm"}, "InvalidSpec: spec.engine is vllm"),
        (MODEL_SERVE, {"autoscaling": {"max": 2, "provider": "keda"}}, "InvalidSpec: spec.autoscaling.provider is"),
        (ALIGNMENT_RUN, {"compute": {"nodePool": "h100"}}, "NodePoolUnknown: spec.compute.nodePool is h100"),
        (ALIGNMENT_RUN, {"sft": {"template": BASE | {"compute": {"nodePool": "b"}}}}, "NodePoolUnknown: spec.sft.t"),
    ],
)  # fmt: skip
def test_what_only_another_spec_can_mend_is_refused(kind: Kind, spec: JsonObject, said: str) -> None:
    whole = {FINE_TUNE_JOB: BASE, EVALUATION: MEASURED, MODEL_SERVE: SERVED, ALIGNMENT_RUN: run_spec()}[kind] | spec
    outcome, words = Place().outcome(resource(kind, "demo", whole))
    assert outcome == "denied"
    assert words.startswith(said)


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        (FINE_TUNE_JOB, TUNED, "ReferencePending: spec.model.from names FineTuneJob base, which does not exist yet."),
        (FINE_TUNE_JOB, BASE | {"dataset": {"uri": "pvc://late/a"}}, "VolumeMissing: spec.dataset.uri names claim"),
        (FINE_TUNE_JOB, BASE | {"dataset": {"uri": "configmap://late/a"}}, "ConfigMapMissing: "),
        (EVALUATION, MEASURED, "ReferencePending: "),
        (EVALUATION, MEASURED | {"models": [], "endpoint": {"modelServe": "late"}}, "ReferencePending: "),
        (MODEL_SERVE, SERVED, "ReferencePending: spec.model.from names FineTuneJob base, which does not exist yet."),
        (ALIGNMENT_RUN, run_spec(prompts={"uri": "pvc://late/a.json"}), "VolumeMissing: spec.prompts.uri"),
    ],
)  # fmt: skip
def test_what_may_still_come_is_a_warning(kind: Kind, spec: JsonObject, said: str) -> None:
    outcome, words = Place().outcome(resource(kind, "demo", spec))
    assert outcome == "warned"
    assert words.startswith(said)


def test_what_is_in_another_namespace_is_as_if_it_were_not() -> None:
    theirs = resource(FINE_TUNE_JOB, "base", BASE, status=SUCCEEDED)
    theirs["metadata"]["namespace"] = "another-team"
    for kind, spec in ((FINE_TUNE_JOB, TUNED), (MODEL_SERVE, SERVED), (EVALUATION, MEASURED)):
        outcome, words = Place(theirs).outcome(resource(kind, "demo", spec))
        assert (outcome, words.partition(":")[0]) == ("warned", "ReferencePending")


def test_what_makes_sense_is_let_through_without_a_word() -> None:
    assert Place().outcome(resource(FINE_TUNE_JOB, "demo", BASE)) == ("allowed", "")
    assert Place().outcome(resource(ALIGNMENT_RUN, "demo", run_spec())) == ("allowed", "")


def test_a_refusal_is_not_hidden_behind_what_is_still_to_come() -> None:
    spec = TUNED | {"dataset": {"uri": "pvc://late/a"}, "compute": {"nodePool": "h100"}}
    assert Place().outcome(resource(FINE_TUNE_JOB, "demo", spec))[0] == "denied"
    served = SERVED | {
        "adapters": [{"name": "demo", "model": {"uri": "pvc://data/a"}}],
        "compute": {"nodePool": "a100-80gb", "gpusPerWorker": 1},
    }
    assert Place().outcome(resource(MODEL_SERVE, "demo", served))[0] == "denied"


def test_what_rests_on_another_resource_is_a_warning_since_that_may_be_applied_anew() -> None:
    """The model of `base` is too large for the pool's GPUs; a smaller one may be on its way."""
    base = resource(FINE_TUNE_JOB, "base", BASE, status=SUCCEEDED)
    new = resource(FINE_TUNE_JOB, "demo", TUNED | {"compute": {"nodePool": "a100-80gb", "gpusPerWorker": 1}})
    outcome, words = Place(base).outcome(new)
    assert outcome == "warned"
    assert words.startswith("ExceedsMemory: ")


def test_a_circle_is_told_though_the_resource_that_closes_it_is_not_stored_yet() -> None:
    other = resource(FINE_TUNE_JOB, "base", BASE | {"model": {"from": {"kind": "FineTuneJob", "name": "demo"}}})
    outcome, words = Place(other).outcome(resource(FINE_TUNE_JOB, "demo", TUNED))
    assert outcome == "warned"
    assert words.startswith("ReferenceCycle: ")


def test_what_stood_before_does_not_keep_anybody_from_suspending() -> None:
    old = resource(FINE_TUNE_JOB, "demo", BASE | {"compute": {"nodePool": "gone"}})
    new = resource(FINE_TUNE_JOB, "demo", BASE | {"compute": {"nodePool": "gone"}, "suspend": True})
    worse = resource(FINE_TUNE_JOB, "demo", BASE | {"compute": {"nodePool": "nowhere"}})
    assert Place(old).outcome(new, old)[0] == "warned"
    assert Place(old).outcome(worse, old)[0] == "denied"


def test_a_change_that_leaves_the_spec_alone_is_not_looked_at() -> None:
    old = resource(FINE_TUNE_JOB, "demo", BASE | {"compute": {"nodePool": "gone"}})
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"team": "a"}
    assert Place(old).outcome(new, old) == ("allowed", "")


@pytest.mark.parametrize(
    "change",
    [
        {"deletionTimestamp": "2026-11-21T12:00:00Z"},
        {"ownerReferences": [{"apiVersion": "alidade.dev/v1alpha1", "kind": "AlignmentRun", "controller": True}]},
    ],
)
def test_what_goes_and_what_a_run_has_made_is_not_looked_at(change: JsonObject) -> None:
    new = resource(FINE_TUNE_JOB, "demo", BASE | {"compute": {"nodePool": "h100"}})
    assert Place().outcome(new)[0] == "denied"
    new["metadata"] |= change
    assert Place().outcome(new) == ("allowed", "")


def test_other_namespaces_operations_subresources_and_kinds_are_not_looked_at() -> None:
    new = resource(FINE_TUNE_JOB, "demo", BASE | {"compute": {"nodePool": "h100"}})
    elsewhere = Place(config=CONFIG.model_copy(update={"namespaces": ["another"]}))
    assert elsewhere.outcome(new) == ("allowed", "")
    assert Place().outcome(new, subResource="status") == ("allowed", "")
    assert Place().outcome(new, operation="DELETE", object=None, oldObject=new) == ("allowed", "")
    assert Place().outcome(new | {"kind": "Pod"}) == ("allowed", "")
    foreign = {"group": "another.dev", "version": "v1", "kind": "FineTuneJob"}
    assert Place().outcome(new, kind=foreign) == ("allowed", "")


def test_a_name_that_is_still_to_be_made_up_is_no_hindrance() -> None:
    new = resource(FINE_TUNE_JOB, "demo", BASE)
    new["metadata"] = {"generateName": "demo-"}
    assert Place().outcome(new, name="") == ("allowed", "")


def test_what_somebody_has_written_into_a_new_resources_status_counts_for_nothing() -> None:
    new = resource(FINE_TUNE_JOB, "demo", BASE | {"compute": {"nodePool": "h100"}}, status=SUCCEEDED)
    assert Place().outcome(new)[0] == "denied"


async def test_what_cannot_be_judged_is_let_through_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unable:
        config = CONFIG

        def __init__(self, error: Exception) -> None:
            self.error = error

        async def foresee(self, kind: Kind, body: JsonObject, *, alone: bool = False) -> Any:
            raise self.error

    new = resource(FINE_TUNE_JOB, "demo", BASE)
    kind = {"group": "alidade.dev", "version": "v1alpha1", "kind": "FineTuneJob"}
    content = {"request": {"uid": "1", "kind": kind, "operation": "CREATE", "object": new, "namespace": NAMESPACE}}
    for error in (ApiError(0, "Unreachable", "no answer"), AssertionError("a mistake of ours"), TimeoutError()):
        response = (await review(content, Unable(error)))["response"]
        assert response == {"uid": "1", "allowed": True, "warnings": [admission.NOT_CHECKED]}


@pytest.mark.parametrize("content", [None, [], {}, {"request": None}, {"request": {}}, {"request": {"uid": 3}}])
async def test_what_is_no_review_is_told_so(content: Any) -> None:
    with pytest.raises(MalformedReviewError, match="AdmissionReview"):
        await review(content, Place().controller)


# What is written and the condition that follows

uris = st.sampled_from(
    ["pvc://data/a", "pvc://late/a", "file:///a", "hf://org/a-7b", "s3://127.0.0.1/a", "configmap://a/b"]
)
models = st.one_of(
    st.sampled_from([INIT, FROM]), uris.filter(lambda uri: "configmap" not in uri).map(lambda uri: {"uri": uri})
)
computes = st.fixed_dictionaries(
    {},
    optional={
        "nodePool": st.sampled_from(["local", "a100-80gb", "h100"]),
        "gpusPerWorker": st.sampled_from([0, 1, 8, 16]),
        "workers": st.sampled_from([1, 2, 3]),
    },
)
jobs = st.fixed_dictionaries(
    {"model": models, "dataset": uris.map(lambda uri: {"uri": uri})}, optional={"compute": computes}
)
bases = st.sampled_from([None, {}, SUCCEEDED, {"conditions": [{"type": "Failed", **TRUE}]}])


@given(spec=jobs, base=bases, kind=st.sampled_from([FINE_TUNE_JOB, REWARD_MODEL]))
def test_the_webhook_says_what_accepted_and_fits_come_to_say(spec: JsonObject, base: Any, kind: Kind) -> None:
    place = Place(*([resource(FINE_TUNE_JOB, "base", BASE, status=base)] if base is not None else []))
    new = resource(kind, "demo", spec)
    outcome, words = place.outcome(new)
    place.add(new)
    plan, _ = drive(place.controller._plan(kind, new))
    assert plan.status is not None
    conditions = {one.type: one for one in plan.status.conditions}
    accepted, fits = conditions["Accepted"], conditions.get("Fits")
    told = accepted if accepted.status != "True" else fits if fits is not None and fits.status == "False" else None
    assert (outcome == "allowed") == (told is None)
    if told is not None:
        assert words == f"{told.reason}: {told.message}"
        assert outcome == "warned" or told.status == "False"


FOLDER = [
    resource(CLAIM, "late"),
    resource(FINE_TUNE_JOB, "base", BASE | {"dataset": {"uri": "pvc://late/a.json"}}),
    resource(FINE_TUNE_JOB, "tuned", TUNED),
    resource(REWARD_MODEL, "judge", {"model": FROM, "dataset": {"uri": "pvc://late/p.json"}}),
    resource(EVALUATION, "measured", MEASURED | {"models": [], "endpoint": {"modelServe": "served"}}),
    resource(ALIGNMENT_RUN, "run", run_spec(sft={"ref": {"name": "tuned"}})),
    resource(MODEL_SERVE, "served", {"model": {"from": {"kind": "AlignmentRun", "name": "run"}}}),
]


@given(st.permutations(FOLDER))
def test_a_folder_may_be_applied_in_any_order(order: list[JsonObject]) -> None:
    place = Place()
    for body in order:
        if body["kind"] != CLAIM.kind:
            assert place.outcome(body)[0] != "denied"
        place.add(body)
