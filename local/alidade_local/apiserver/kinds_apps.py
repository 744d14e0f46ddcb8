"""Defaults and rules of Deployment, ReplicaSet and Job."""

from typing import Any

from alidade_local.apiserver.errors import FieldError, forbidden_field, invalid, not_supported, required
from alidade_local.apiserver.kinds import KindRules
from alidade_local.apiserver.kinds_pods import default_pod_spec, validate_pod_spec
from alidade_local.apiserver.kinds_policies import amount_errors
from alidade_local.apiserver.selectors import labels_of_selector

Json = dict[str, Any]

_STRATEGIES = ("Recreate", "RollingUpdate")
_NOTHING = (0, "0%")


_PLACEMENT = ("nodeSelector", "tolerations", "affinity", "schedulingGates")


def _default_template(spec: Json) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def _default_deployment(deployment: Json) -> None:
    spec = deployment.setdefault("spec", {})
    _default_template(spec)
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")


def _default_replica_set(replica_set: Json) -> None:
    spec = replica_set.setdefault("spec", {})
    _default_template(spec)
    spec.setdefault("replicas", 1)


def _validate_scaled(obj: Json, old: Json | None) -> list[FieldError]:
    spec = obj["spec"]
    errors = _selector_errors(spec)
    if old is not None and spec.get("selector") != old["spec"].get("selector"):
        errors.append(invalid("spec.selector", spec.get("selector"), "field is immutable"))
    if spec["replicas"] < 0:
        errors.append(invalid("spec.replicas", spec["replicas"], "must be greater than or equal to 0"))
    return errors + validate_pod_spec(spec["template"]["spec"], "spec.template.spec", ("Always",))


def _validate_deployment(deployment: Json, old: Json | None) -> list[FieldError]:
    return [*_validate_scaled(deployment, old), *_strategy_errors(deployment["spec"]["strategy"])]


def _strategy_errors(strategy: Json) -> list[FieldError]:
    path, rolling = "spec.strategy.rollingUpdate", strategy.get("rollingUpdate") or {}
    if strategy["type"] not in _STRATEGIES:
        return [not_supported("spec.strategy.type", strategy["type"], _STRATEGIES)]
    if strategy["type"] == "Recreate":
        detail = "may not be specified when strategy `type` is 'Recreate'"
        return [forbidden_field(path, detail)] if rolling else []
    errors = [*amount_errors(rolling["maxSurge"], f"{path}.maxSurge", most=None)]
    errors += amount_errors(rolling["maxUnavailable"], f"{path}.maxUnavailable")
    if rolling["maxSurge"] in _NOTHING and rolling["maxUnavailable"] in _NOTHING:
        errors.append(invalid(f"{path}.maxUnavailable", rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0"))
    return errors


def _selector_errors(spec: Json) -> list[FieldError]:
    selector = spec.get("selector")
    if not selector:
        return [required("spec.selector")]
    labels = spec["template"]["metadata"].get("labels") or {}
    if not labels_of_selector(selector).matches(labels):
        return [invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")]
    return []


DEPLOYMENT = KindRules(default=_default_deployment, validate=_validate_deployment)
REPLICA_SET = KindRules(default=_default_replica_set, validate=_validate_scaled)


def _default_job(job: Json) -> None:
    spec = job.setdefault("spec", {})
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod = template.setdefault("spec", {})
    restart_policy = pod.get("restartPolicy")
    default_pod_spec(pod)
    if restart_policy is None:
        pod["restartPolicy"] = "Always"  # refused by validation, in the words of the original
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")


def _new_job(job: Json) -> None:
    spec = job["spec"]
    if spec.get("manualSelector"):
        return
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    labels = spec["template"]["metadata"].setdefault("labels", {})
    labels.update(
        {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
            "controller-uid": uid,
            "job-name": name,
        }
    )
    job["metadata"].setdefault("labels", dict(labels))
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _keep_job_selector(job: Json, old: Json) -> None:
    spec, before = job["spec"], old["spec"]
    if not spec.get("selector") and before.get("selector"):
        spec["selector"] = before["selector"]
        own = {
            key: value
            for key, value in (before["template"]["metadata"].get("labels") or {}).items()
            if "controller-uid" in key or "job-name" in key
        }
        spec["template"]["metadata"]["labels"] = {**(spec["template"]["metadata"].get("labels") or {}), **own}


def _validate_job(job: Json, old: Json | None) -> list[FieldError]:
    spec = job["spec"]
    errors: list[FieldError] = []
    for name in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        if isinstance(spec.get(name), int) and spec[name] < 0:
            errors.append(invalid(f"spec.{name}", spec[name], "must be greater than or equal to 0"))
    errors += validate_pod_spec(spec["template"]["spec"], "spec.template.spec", ("OnFailure", "Never"))
    if old is not None:
        errors += [
            invalid(f"spec.{name}", spec.get(name), "field is immutable")
            for name in ("completions", "template", "selector", "completionMode")
            if spec.get(name) != old["spec"].get(name)
            and not (name == "template" and old["spec"].get("suspend") and _is_placed(spec[name], old["spec"][name]))
        ]
    return errors


def _is_placed(template: Json, old: Json) -> bool:
    """Whether two templates of a suspended Job differ in nothing but where and under which labels its pods run."""

    def rest(whole: Json) -> Json:
        metadata = {key: value for key, value in whole["metadata"].items() if key not in ("labels", "annotations")}
        spec = {key: value for key, value in whole["spec"].items() if key not in _PLACEMENT}
        return {**whole, "metadata": metadata, "spec": spec}

    return rest(template) == rest(old)


JOB = KindRules(
    default=_default_job,
    prepare_create=_new_job,
    prepare_update=_keep_job_selector,
    validate=_validate_job,
    default_propagation="Orphan",  # as in the original, for the sake of clients older than garbage collection
)
