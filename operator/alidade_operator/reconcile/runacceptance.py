"""Whether an AlignmentRun can be begun: its own blocks and those of its templates, before any GPU is taken."""

import difflib
import math
from collections.abc import Iterator, Sequence

from alidade_crds.alignmentrun import AlignmentRunSpec, DataDigest, RewardSource
from alidade_crds.blocks import Model
from alidade_crds.evaluation import SUITE_METRICS, Suite
from alidade_crds.jobs import RewardModelSpec, TrainingJobSpec
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import JobStatus
from alidade_operator.api import ALIGNMENT_RUN, FINE_TUNE_JOB, REWARD_MODEL, Kind
from alidade_operator.config import OperatorConfig
from alidade_operator.jobspecs import AlignmentJobSpec, addresses, judge_urls
from alidade_operator.reconcile import acceptance
from alidade_operator.reconcile.acceptance import Candidate, Refusal
from alidade_operator.reconcile.alignmentjob import ALIGN, alignment_spec
from alidade_operator.reconcile.backends import backend_of
from alidade_operator.reconcile.evaluationacceptance import ANY_SUITE, metric_refusal
from alidade_operator.reconcile.evaluationstage import needs_reward
from alidade_operator.reconcile.fit import Verdict, fit_verdict, model_shape
from alidade_operator.reconcile.gate import ALIGNED_MODEL, START_MODEL
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.reconcile.run import HASH_LENGTH, AlignmentRun, RunObserved, child_name
from alidade_operator.reconcile.stages import SFT
from alidade_operator.resources.attempt import processes_per_worker
from alidade_operator.resources.observation import SourceView

_RESERVED = frozenset({SFT, ALIGN, "evaluation", "gate", "serve", "eval"})


def is_due(run: AlignmentRun) -> bool:
    """Whether the spec has still to be accepted; what runs is not refused afterwards."""
    accepted = any(item.type == ConditionType.ACCEPTED and item.status == "True" for item in run.status.conditions)
    fits = not any(item.type == ConditionType.FITS and item.status == "False" for item in run.status.conditions)
    return run.is_changed or not accepted or not fits


def all_addresses(spec: AlignmentRunSpec) -> Iterator[tuple[str, str]]:
    """Every address of a run, its templates included, with the field that holds it."""
    for part, field, _, _ in parts_of(spec):
        yield from addresses(part, field)


def parts_of(spec: AlignmentRunSpec) -> Iterator[tuple[TrainingJobSpec, str, Kind, str]]:
    """The training jobs of a run: spec, the field where it stands, its kind, and the name of its stage."""
    yield _job_spec(spec), "spec", ALIGNMENT_RUN, ALIGN
    if spec.sft.template is not None:
        yield spec.sft.template, "spec.sft.template", FINE_TUNE_JOB, SFT
    for index, reward in enumerate(spec.reward_models):
        if reward.template is not None:
            fields = {name: getattr(reward.template, name) for name in type(reward.template).model_fields}
            fields["model"] = reward.template.model or Model()
            yield RewardModelSpec(**fields), f"spec.rewardModels[{index}].template", REWARD_MODEL, reward.name


def _job_spec(spec: AlignmentRunSpec) -> AlignmentJobSpec:
    """The alignment job with its models left open."""
    rewards = {one.name: one.model.address for one in spec.reward_models if one.model is not None}
    return alignment_spec(spec, model=spec.sft.model or Model(), rewards=rewards, output=None)


def refusal(run: AlignmentRun, seen: RunObserved, config: OperatorConfig) -> Refusal | None:
    """The foremost objection to beginning the run, or None."""
    return acceptance.foremost(_objections(run, seen, config))


def _objections(run: AlignmentRun, seen: RunObserved, config: OperatorConfig) -> Iterator[Refusal | None]:
    assert run.spec is not None, "an unreadable spec does not get here"
    yield (
        _names(run, config) or _circle(run, seen) or _evaluated(run.spec) or _baselines(run.spec) or _batches(run.spec)
    )
    yield from _hosts(run.spec, config)
    for spec, field, kind, stage in parts_of(run.spec):
        if kind is not ALIGNMENT_RUN:
            yield _lifetime(spec, field)
        # The model of a template is looked at when the stage is made; here it would only be waited for.
        part = spec.model_copy(update={"model": Model(uri=spec.model.uri, sha256=spec.model.sha256)})
        yield acceptance.refusal(Candidate(_job(run, kind, stage), part, seen.place, config, field))


def _hosts(spec: AlignmentRunSpec, config: OperatorConfig) -> Iterator[Refusal | None]:
    """Servers that the run's Evaluation asks, long after the GPUs have been paid."""
    if spec.evaluation is not None:
        for field, url in judge_urls(spec.evaluation.template.suites, "spec.evaluation.template"):
            yield acceptance.host_refusal(field, url, config)


def _job(run: AlignmentRun, kind: Kind, stage: str) -> TrainingJob:
    """A job of the run with the names that it will have."""
    return TrainingJob(
        kind=kind,
        namespace=run.namespace,
        name=run.name,
        uid=run.uid,
        generation=run.generation,
        terminating=False,
        spec=None,
        spec_error="",
        status=JobStatus(),
        base=child_name(run.name, stage, "0" * HASH_LENGTH),
    )


def _names(run: AlignmentRun, config: OperatorConfig) -> Refusal | None:
    assert run.spec is not None, "an unreadable spec does not get here"
    for index, reward in enumerate(run.spec.reward_models):
        if reward.name in _RESERVED or reward.name.endswith(("-raft", "-ppo", "-dpo")):
            return Refusal(
                Reason.INVALID_SPEC,
                f"spec.rewardModels[{index}].name is {reward.name}, which is the name of another stage. Choose another "
                "one, such as helpfulness.",
            )
        if "." in reward.name:
            return Refusal(
                Reason.INVALID_SPEC,
                f"spec.rewardModels[{index}].name is {reward.name}; pods are named after it: leave the dots out.",
            )
        found = _reward_name(run, reward, index, config)
        if found is not None:
            return found
    return None


def _reward_name(run: AlignmentRun, reward: RewardSource, index: int, config: OperatorConfig) -> Refusal | None:
    """A reward model's pods are named after the run and the reward."""
    if reward.template is None:
        return None
    compute = reward.template.compute
    longest = backend_of(compute, config).longest_name(workers=compute.workers)
    limit = longest - len(child_name(run.name, "", "0" * HASH_LENGTH))
    if limit < len(ALIGN) or len(reward.name) <= limit:
        return None  # or the run's own name is too long, which is said by the checks of its parts
    return Refusal(
        Reason.NAME_TOO_LONG,
        f"spec.rewardModels[{index}].name has {len(reward.name)} characters; with metadata.name {run.name} at most "
        f"{limit} leave the pods' names within 63. Choose a shorter one.",
    )


def _lifetime(spec: TrainingJobSpec, field: str) -> Refusal | None:
    """A stage that went before its run would be made again."""
    if spec.ttl_seconds_after_finished is None:
        return None
    return Refusal(
        Reason.INVALID_SPEC,
        f"{field}.ttlSecondsAfterFinished is {spec.ttl_seconds_after_finished}; a stage stays as long as its run. "
        "Leave it out, or set spec.ttlSecondsAfterFinished.",
    )


def _evaluated(spec: AlignmentRunSpec) -> Refusal | None:
    """What the Evaluation of the run would be refused for, long after the GPUs have been paid."""
    if spec.evaluation is None:
        return None
    template, field = spec.evaluation.template, "spec.evaluation.template"
    for index, one in enumerate(template.models):
        if one.name in (START_MODEL, ALIGNED_MODEL):
            return Refusal(
                Reason.INVALID_SPEC,
                f"{field}.models[{index}].name is {one.name}, which is one of the run's own models. Choose another "
                "one.",
            )
    known = [START_MODEL, ALIGNED_MODEL, *(one.name for one in template.models)]
    if template.baseline is not None and template.baseline not in known:
        return Refusal(
            Reason.INVALID_SPEC,
            f"{field}.baseline is {template.baseline}; the evaluation measures {', '.join(known)}. Name one of them, "
            f"or add the model to {field}.models.",
        )
    for index, suite in enumerate(template.suites):
        if needs_reward(suite) and all(reward.entry_point is not None for reward in spec.reward_models):
            return Refusal(
                Reason.INVALID_SPEC,
                f"{field}.suites[{index}].rewardModel is missing, and no reward of the run is a model or a function "
                "that could stand in for it. Name one, or leave the suite out.",
            )
        for metric in suite.metrics:
            found = metric_refusal(suite, metric, f"{field}.suites[{index}].metrics")
            if found is not None:
                return found
    return None


def _circle(run: AlignmentRun, seen: RunObserved) -> Refusal | None:
    own = f"{ALIGNMENT_RUN.kind}/{run.name}"
    if own not in seen.circle:
        return None
    return Refusal(
        Reason.REFERENCE_CYCLE,
        f"The run refers to itself in a circle: {' → '.join(seen.circle)}. Let one of them start from an address.",
    )


def _baselines(spec: AlignmentRunSpec) -> Refusal | None:
    """A gate compares with models that the evaluation measures."""
    if spec.evaluation is None:
        return None
    known = [START_MODEL, ALIGNED_MODEL, *(one.name for one in spec.evaluation.template.models)]
    for index, rule in enumerate(spec.gate):
        found = _gate_metric(spec.evaluation.template.suites, rule.metric, f"spec.gate[{index}].metric")
        if found is not None:
            return found
        for name, bound in (("atLeast", rule.at_least), ("atMost", rule.at_most)):
            if bound is not None and bound.baseline is not None and bound.baseline not in known:
                return Refusal(
                    Reason.INVALID_SPEC,
                    f"spec.gate[{index}].{name}.baseline is {bound.baseline}; the evaluation measures "
                    f"{', '.join(known)}. Name one of them, or add the model to spec.evaluation.template.models.",
                )
    return None


def _gate_metric(suites: Sequence[Suite], metric: str, field: str) -> Refusal | None:
    """The objection to a metric that no suite has, or None; some suites' metrics are not known beforehand."""
    if any(suite.type not in SUITE_METRICS for suite in suites):
        return None
    measured = [(suite.title, one) for suite in suites for one in (*SUITE_METRICS[suite.type], *ANY_SUITE)]
    if any(metric in (one, f"{suite}.{one}", f"{suite}_{one}") for suite, one in measured):
        return None
    names = [f"{suite}.{one}" for suite, one in measured]
    near = difflib.get_close_matches(metric, names, n=3, cutoff=0.5) or names[:8]
    return Refusal(
        Reason.METRIC_UNKNOWN,
        f"{field} is {metric}, which the evaluation does not measure. Did you mean {' or '.join(near)}?",
    )


def _batches(spec: AlignmentRunSpec) -> Refusal | None:
    """What the steps ask of a batch, against the number of processes that share it."""
    processes = spec.compute.workers * processes_per_worker(spec.compute)
    for index, step in enumerate(spec.align):
        if step.ppo is not None and step.ppo.mini_batch_size % processes:
            return Refusal(
                Reason.INVALID_SPEC,
                f"spec.align[{index}].ppo.miniBatchSize is {step.ppo.mini_batch_size}; it must be a multiple of the "
                f"{processes} training processes.",
            )
        if step.raft is None:
            continue
        drawn = step.raft.prompts_per_iteration * step.raft.samples_per_prompt
        share = step.raft.acceptance_ratio
        kept = step.raft.prompts_per_iteration if step.raft.acceptance == "bestOfK" else math.ceil(share * drawn - 1e-9)
        if kept < processes:
            return Refusal(
                Reason.INVALID_SPEC,
                f"spec.align[{index}].raft accepts at most {kept} of {drawn} samples, fewer than the {processes} "
                "training processes. Raise promptsPerIteration, samplesPerPrompt or acceptanceRatio, or use fewer "
                "workers.",
            )
    return None


def fit(run: AlignmentRun, seen: RunObserved, config: OperatorConfig) -> Verdict:
    """Whether the alignment will fit, from the best that is known of its start model before it is there."""
    spec = run.spec
    assert spec is not None, "an unreadable spec does not get here"
    model = spec.sft.template.model if spec.sft.template is not None else spec.sft.model or Model()
    named: tuple[str, str] | None = (model.from_.kind, model.from_.name) if model.from_ is not None else None
    if spec.sft.ref is not None:
        named = (FINE_TUNE_JOB.kind, spec.sft.ref.name)
    view = seen.resources.get(named) if named is not None else None
    source = SourceView(exists=True, model=view.status.model) if view is not None and view.status.model else None
    pool = config.pool(spec.compute.node_pool)
    assert pool is not None, "checked by acceptance"
    job = _job_spec(spec).model_copy(update={"model": model})
    shape = model_shape(job, source)
    # A reward model that is still to be made is taken to be as large as the model it starts from.
    judges = [_parameters(one, seen) or (shape.parameters if shape is not None else 0) for one in _models(spec)]
    return fit_verdict(job.model_copy(update={"judges": judges}), source=source, pool=pool)


def _models(spec: AlignmentRunSpec) -> list[RewardSource]:
    return [one for one in spec.reward_models if one.function is None and one.entry_point is None]


def _parameters(reward: RewardSource, seen: RunObserved) -> int | None:
    """Weights of a reward model that is there; None where that is not known."""
    view = seen.resources.get((REWARD_MODEL.kind, reward.ref.name)) if reward.ref is not None else None
    return view.status.model.parameters if view is not None and view.status.model is not None else None


def data_digests(seen: RunObserved) -> list[DataDigest]:
    """The digests for the status."""
    return [DataDigest(uri=uri, digest=digest) for uri, digest in sorted(seen.data.items())]
