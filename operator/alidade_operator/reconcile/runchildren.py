"""Resources that an AlignmentRun makes for its stages, labelled so that they find their run and are found by inputs."""

from typing import Any

from alidade_crds.blocks import Compute
from alidade_operator.api import ALIGNMENT_RUN, JsonObject, Kind
from alidade_operator.cache import INPUTS_LABEL
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile.run import AlignmentRun, MadeStage
from alidade_operator.resources.labels import child_labels, owner_reference

RUN_GENERATION = "alidade.dev/run-generation"
"""Annotation: the generation of the run that asked for a resource last."""


def stage_resource(run: AlignmentRun, made: MadeStage, config: OperatorConfig, *, deadline_s: int | None) -> JsonObject:
    """The FineTuneJob or RewardModel of a stage."""
    assert run.spec is not None, "an unreadable spec does not get here"
    spec = made.spec | {"suspend": run.spec.suspend}
    if deadline_s is not None:
        spec["activeDeadlineSeconds"] = deadline_s
    if "output" not in spec:
        spec["output"] = {"uri": stage_output(run, config, f"{made.stage}-{made.inputs}")}
    return run_child(run, made.kind, made.name, made.stage, spec, inputs=made.inputs)


def stage_changes(body: JsonObject, uid: str) -> JsonObject:
    """What a resource that is there takes up of its newest form: how long, how often and where it runs."""
    spec = body["spec"]
    compute = Compute.model_validate(spec["compute"]).model_dump(mode="json", by_alias=True)
    fields = {name: spec.get(name) for name in ("suspend", "backoffLimit", "activeDeadlineSeconds")}
    metadata = {"name": body["metadata"]["name"], "uid": uid, "annotations": body["metadata"]["annotations"]}
    return {"metadata": metadata, "spec": fields | {"compute": compute}}


def run_child(
    run: AlignmentRun, kind: Kind, name: str, stage: str, spec: JsonObject, *, inputs: str | None = None
) -> JsonObject:
    """A resource that belongs to a run and goes with it."""
    labels: dict[str, Any] = child_labels(ALIGNMENT_RUN.kind, run.name, stage)
    if inputs is not None:
        labels[INPUTS_LABEL] = inputs
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": run.namespace,
            "labels": labels,
            "annotations": {RUN_GENERATION: str(run.generation)},
            "ownerReferences": [owner_reference(ALIGNMENT_RUN.kind, run.name, run.uid)],
        },
        "spec": spec,
    }


def stage_output(run: AlignmentRun, config: OperatorConfig, folder: str) -> str:
    """The folder of a stage on the workspace volume.

    By inputs, so that a stage made anew goes on from its checkpoints; by the run's uid, so that a new run of the same
    name does not take what data of an older time has made.
    """
    return f"pvc://{config.workspace_claim}/{ALIGNMENT_RUN.plural}/{run.name}-{run.uid[:8]}/{folder}"
