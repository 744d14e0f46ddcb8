"""The PyTorchJob controller: what kubeflow's training-operator 1.9 does with `kubeflow.org/v1` PyTorchJobs.

Left out because it needs what the local cluster does not have: gang scheduling, and the autoscaler of
`elasticPolicy.metrics`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from alidade_local.controllers.plan import Children, Plan, Planner
from alidade_local.controllers.pods import phase_of, restarts_of
from alidade_local.controllers.pytorchjob_pods import (
    CONTAINER,
    PORT_NAME,
    REPLICA_INDEX_LABEL,
    REPLICA_TYPE_LABEL,
    build_pod,
    build_service,
    replica_labels,
    replica_specs,
    replicas_of,
    restart_policy_of,
    total_replicas,
)
from alidade_local.controllers.pytorchjob_status import KIND, is_finished, is_true, set_condition
from alidade_local.events import normal, warning
from alidade_local.objects import Object, format_time, is_deleting, labels_of, name_of, namespace_of, parse_time
from alidade_local.resources import PODS, SERVICES

MANAGED_BY = "kubeflow.org/training-operator"
# Exit codes from here on mean that the container was ended from outside (128 + signal): worth another try.
FIRST_RETRYABLE_EXIT_CODE = 128


def pytorchjob_planner(choose_port: Callable[[Object], int]) -> Planner:
    """A planner that gives each job the rendezvous port that `choose_port` picks for it.

    The original's fixed port 23456 would collide here: all pods share the machine's network, and TCPStore listens on
    every interface.
    """

    def plan(job: Object, children: Children, now: datetime) -> Plan:
        return plan_pytorchjob(job, children[PODS], children[SERVICES], now, choose_port=choose_port)

    return plan


def plan_pytorchjob(
    job: Object,
    pods: Sequence[Object],
    services: Sequence[Object],
    now: datetime,
    *,
    choose_port: Callable[[Object], int],
) -> Plan:
    """What to create, delete and report for a PyTorchJob whose pods and Services are these."""
    run_policy = job["spec"].get("runPolicy") or {}
    if is_deleting(job) or run_policy.get("managedBy", MANAGED_BY) != MANAGED_BY:
        return Plan()
    work = _Work(job, list(pods), list(services), run_policy, copy.deepcopy(job.get("status") or {}), now, Plan())
    set_condition(work.status, "Created", True, f"PyTorchJob {name_of(job)} is created.", now)
    if is_finished(job.get("status") or {}):
        _plan_finished(work)
    elif run_policy.get("suspend"):
        _plan_suspended(work)
    else:
        _plan_active(work, choose_port)
    work.plan.status = work.status
    return work.plan


@dataclass
class _Work:
    """One job while it is being planned; `status` and `plan` are filled in."""

    job: Object
    pods: list[Object]
    services: list[Object]
    run_policy: Object
    status: Object
    now: datetime
    plan: Plan

    @property
    def name(self) -> str:
        return name_of(self.job)

    def condition(self, condition_type: str, value: bool, message: str, *, reason: str = "") -> None:
        set_condition(self.status, condition_type, value, message, self.now, reason=reason)

    def complete(self) -> None:
        self.status.setdefault("completionTime", format_time(self.now))

    def of_type(self, replica_type: str) -> list[Object]:
        return [pod for pod in self.pods if labels_of(pod).get(REPLICA_TYPE_LABEL) == replica_type.lower()]


# A job that is over.


def _plan_finished(work: _Work) -> None:
    policy = work.run_policy.get("cleanPodPolicy") or "None"
    if policy == "All":
        _delete_pods(work, work.pods)
    elif policy == "Running":
        _delete_pods(work, [pod for pod in work.pods if phase_of(pod) in ("Running", "Pending")])
    if is_true(work.status, "Succeeded"):
        for counts in (work.status.get("replicaStatuses") or {}).values():
            counts["succeeded"] = counts.get("succeeded", 0) + counts.pop("active", 0)
    _plan_removal(work)


def _plan_removal(work: _Work) -> None:
    ttl_s = work.run_policy.get("ttlSecondsAfterFinished")
    if ttl_s is None:
        return
    work.complete()
    expires = parse_time(work.status["completionTime"]) + timedelta(seconds=ttl_s)
    if work.now >= expires:
        work.plan.delete_self = True
        work.plan.events.append(normal("SuccessfulDeleteJob", f"Deleted job: {work.name}"))
    else:
        work.plan.look_again_after((expires - work.now).total_seconds())


def _delete_pods(work: _Work, pods: Sequence[Object]) -> None:
    """Delete pods, and Services that are no other pod's: one's deletion may have failed when its pod's had not."""
    kept = {name_of(pod) for pod in work.pods} - {name_of(pod) for pod in pods}
    work.plan.delete += [(PODS, pod) for pod in pods if not is_deleting(pod)]
    work.plan.delete += [
        (SERVICES, service) for service in work.services if name_of(service) not in kept and not is_deleting(service)
    ]


# A job that is held.


def _plan_suspended(work: _Work) -> None:
    work.plan.delete += [(PODS, pod) for pod in work.pods if not is_deleting(pod)]
    work.plan.delete += [(SERVICES, service) for service in work.services if not is_deleting(service)]
    for counts in (work.status.get("replicaStatuses") or {}).values():
        counts.pop("active", None)
    message = f"PyTorchJob {work.name} is suspended."
    if is_true(work.status, "Running"):
        work.condition("Running", False, message, reason="Suspended")
    if not is_true(work.status, "Suspended"):
        work.condition("Suspended", True, message)
        work.plan.events.append(normal(f"{KIND}Suspended", message))


# A job that is to run.


def _plan_active(work: _Work, choose_port: Callable[[Object], int]) -> None:
    if is_true(work.status, "Suspended"):
        if any(is_deleting(pod) for pod in work.pods):
            return  # the pods from before still end; the original would take them for failed ones
        _resume(work)
    reason = _exceeded_limit(work)
    if reason:
        _fail_at_limit(work, reason)
        return
    port = _known_port(work) or choose_port(work.job)
    previous_failures = is_true(work.status, "Failed")
    for replica_type, spec in replica_specs(work.job).items():
        _plan_replicas(work, replica_type, spec, port)
    _report(work)
    if is_true(work.status, "Failed") and not previous_failures:
        work.complete()


def _resume(work: _Work) -> None:
    message = f"PyTorchJob {work.name} is resumed."
    work.condition("Suspended", False, message, reason="Resumed")
    work.status["startTime"] = format_time(work.now)
    work.plan.events.append(normal(f"{KIND}Resumed", message))


def _exceeded_limit(work: _Work) -> str:
    """Which limit of the run policy the job exceeded, as the sentence of its Failed condition; empty for none."""
    limit = work.run_policy.get("backoffLimit")
    if limit is not None and (_restarts(work) >= max(limit, 1) or (limit == 0 and _has_new_failure(work))):
        return f"Job {work.name} has failed because it has reached the specified backoff limit"
    deadline_s = work.run_policy.get("activeDeadlineSeconds")
    started = work.status.get("startTime")
    if deadline_s is not None and started:
        ends = parse_time(started) + timedelta(seconds=deadline_s)
        if work.now >= ends:
            return f"Job {work.name} has failed because it was active longer than specified deadline"
        work.plan.look_again_after((ends - work.now).total_seconds())
    elif deadline_s is not None:
        work.plan.look_again_after(deadline_s)
    return ""


def _restarts(work: _Work) -> int:
    """Container restarts of running pods whose containers are restarted in place."""
    total = 0
    for replica_type, spec in replica_specs(work.job).items():
        if restart_policy_of(spec) in ("OnFailure", "Always"):
            for pod in work.of_type(replica_type):
                if phase_of(pod) == "Running":
                    total += restarts_of(pod)
    return total


def _has_new_failure(work: _Work) -> bool:
    failed = sum(1 for pod in work.pods if phase_of(pod) == "Failed")
    known = sum(counts.get("failed", 0) for counts in (work.status.get("replicaStatuses") or {}).values())
    active = sum(1 for pod in work.pods if phase_of(pod) in ("Pending", "Running") and not is_deleting(pod))
    return failed > known and active != total_replicas(work.job)


def _fail_at_limit(work: _Work, message: str) -> None:
    work.complete()
    _delete_pods(work, work.pods)
    work.condition("Failed", True, message)
    work.plan.events.append(normal(f"{KIND}Failed", message))


def rendezvous_ports(services: Sequence[Object]) -> set[int]:
    """The rendezvous ports of the jobs that these Services belong to."""
    return {
        int(port["port"])
        for service in services
        for port in service["spec"].get("ports") or []
        if port.get("name") == PORT_NAME
    }


def _known_port(work: _Work) -> int | None:
    """The rendezvous port that an earlier look at this job gave it."""
    return min(rendezvous_ports(work.services), default=None)


def _plan_replicas(work: _Work, replica_type: str, spec: Object, port: int) -> None:
    """Pods and Services of one type: missing ones made, surplus ones deleted, failed ones replaced if worth it."""
    wanted = replicas_of(spec)
    counts: Object = {"selector": _format_selector(replica_labels(work.job, replica_type))}
    work.status.setdefault("replicaStatuses", {})[replica_type] = counts
    present = {_index(pod): pod for pod in work.of_type(replica_type)}
    for index, pod in sorted(present.items()):
        if not 0 <= index < wanted and not is_deleting(pod):
            work.plan.delete.append((PODS, pod))
        _restart_or_fail(work, replica_type, spec, pod)
        outcome = _outcome(pod)
        if outcome:
            counts[outcome] = counts.get(outcome, 0) + 1
    for index in range(wanted):
        if index not in present:
            work.plan.create.append((PODS, build_pod(work.job, replica_type, index, port)))
    _plan_services(work, replica_type, wanted, port)


def _plan_services(work: _Work, replica_type: str, wanted: int, port: int) -> None:
    services = {
        _index(service): service
        for service in work.services
        if labels_of(service).get(REPLICA_TYPE_LABEL) == replica_type.lower()
    }
    missing = [index for index in range(wanted) if index not in services]
    # Before the pods: a variable that names a Service is only taken for its name once the Service exists.
    work.plan.create[:0] = [(SERVICES, build_service(work.job, replica_type, index, port)) for index in missing]
    work.plan.delete += [
        (SERVICES, service) for index, service in services.items() if index >= wanted and not is_deleting(service)
    ]


def _index(document: Object) -> int:
    index = labels_of(document).get(REPLICA_INDEX_LABEL, "")
    return int(index) if index.isdigit() else -1


def _outcome(pod: Object) -> str:
    """Under what a pod counts in replicaStatuses; a running pod that is being deleted counts as failed."""
    running = "failed" if is_deleting(pod) else "active"
    return {"Running": running, "Succeeded": "succeeded", "Failed": "failed"}.get(phase_of(pod), "")


def _exit_code(pod: Object) -> int | None:
    for status in pod["status"].get("containerStatuses") or []:
        if status["name"] == CONTAINER and "terminated" in (status.get("state") or {}):
            return int(status["state"]["terminated"]["exitCode"])
    return None


def _restart_or_fail(work: _Work, replica_type: str, spec: Object, pod: Object) -> None:
    """Delete a failed pod that is worth another try (once gone it is made anew); fail the job for one that is not."""
    if phase_of(pod) != "Failed" or is_deleting(pod):
        return
    exit_code, policy = _exit_code(pod), restart_policy_of(spec)
    if exit_code is not None:
        message = f"Pod: {namespace_of(pod)}.{name_of(pod)} exited with code {exit_code}"
        work.plan.events.append(normal("ExitedWithCode", message))
    # Without an exit code the pod was ended from outside (evicted, deadline): the original takes that for retryable.
    retryable = exit_code is None or exit_code >= FIRST_RETRYABLE_EXIT_CODE
    if policy in ("OnFailure", "Always") or (policy == "ExitCode" and retryable):
        work.plan.delete.append((PODS, pod))
        message = f"job {work.name} is restarting because {replica_type} replica(s) failed."
        work.condition("Restarting", True, message)
        work.plan.events.append(warning(f"{KIND}Restarting", message))
    elif policy == "ExitCode":
        message = f'job "{work.name}" is failing because "{replica_type}" replica(s) failed.'
        work.condition("Failed", True, message)
        work.plan.events.append(warning(f"{KIND}Failed", message))


def _report(work: _Work) -> None:
    """Conditions from the counts; with a Master the job is over when the Master is."""
    work.status.setdefault("startTime", format_time(work.now))
    specs = replica_specs(work.job)
    leader = "Master" if "Master" in specs else "Worker"
    for replica_type, spec in specs.items():
        counts = work.status["replicaStatuses"][replica_type]
        running, succeeded, failed = (counts.get(name, 0) for name in ("active", "succeeded", "failed"))
        wanted = replicas_of(spec)
        if replica_type == leader:
            any_is_enough = leader == "Worker" and bool(work.job["spec"].get("elasticPolicy"))
            if succeeded == wanted or (any_is_enough and succeeded > 0):
                _succeed(work)
                return
            if running > 0:
                work.condition("Running", True, f"PyTorchJob {work.name} is running.")
        if failed > 0 and wanted > succeeded + running:
            _report_failure(work, replica_type, spec, failed)


def _succeed(work: _Work) -> None:
    message = f"PyTorchJob {work.name} is successfully completed."
    work.complete()
    work.condition("Succeeded", True, message)
    work.plan.events.append(normal(f"{KIND}Succeeded", message))


def _report_failure(work: _Work, replica_type: str, spec: Object, failed: int) -> None:
    if restart_policy_of(spec) != "Never":
        if not is_true(work.status, "Restarting"):
            message = f"PyTorchJob {work.name} is restarting because {failed} {replica_type} replica(s) failed."
            work.condition("Restarting", True, message)
            work.plan.events.append(warning(f"{KIND}Restarting", message))
        return
    message = f"PyTorchJob {work.name} is failed because {failed} {replica_type} replica(s) failed."
    work.complete()
    work.condition("Failed", True, message)
    work.plan.events.append(normal(f"{KIND}Failed", message))


def _format_selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels))
