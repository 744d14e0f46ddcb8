"""Defaults and rules of pods, and of pod specs wherever they occur."""

from collections.abc import Sequence
from typing import Any

from alidade_local.apiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required
from alidade_local.apiserver.kinds import KindRules
from alidade_local.apiserver.names import label_errors, label_problem, port_name_problems
from alidade_local.quantities import canonical_quantity, parse_quantity

Json = dict[str, Any]

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_UPDATABLE_POD_SPEC = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "schedulingGates")


def default_pod_spec(spec: Json) -> None:
    """What the API server fills into every pod spec, also in templates."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def _default_container(container: Json) -> None:
    resources = container.setdefault("resources", {})
    for name in ("limits", "requests"):
        if resources.get(name):
            resources[name] = {kind: canonical_quantity(quantity) for kind, quantity in resources[name].items()}
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        tag = str(container.get("image", "")).rpartition("/")[2].partition(":")[2]
        container["imagePullPolicy"] = (
            "Always" if tag in ("", "latest") and "@" not in str(container.get("image")) else "IfNotPresent"
        )
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for env in container.get("env") or ():
        reference = (env.get("valueFrom") or {}).get("fieldRef")
        if reference:
            reference.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name):
            _default_probe(container[name])


def _default_probe(probe: Json) -> None:
    for name, value in {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}.items():
        if not probe.get(name):
            probe[name] = value
    if "httpGet" in probe:
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")


def _default_volume(volume: Json) -> None:
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        if isinstance(volume.get(name), dict):
            volume[name].setdefault("defaultMode", 420)
    if isinstance(volume.get("hostPath"), dict):
        volume["hostPath"].setdefault("type", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        token = source.get("serviceAccountToken")
        if token:
            token.setdefault("expirationSeconds", 3600)
    for holder in (
        volume.get("downwardAPI") or {},
        *((source.get("downwardAPI") or {}) for source in (volume.get("projected") or {}).get("sources") or ()),
    ):
        for item in holder.get("items") or ():
            if item.get("fieldRef"):
                item["fieldRef"].setdefault("apiVersion", "v1")


def validate_pod_spec(spec: Json, path: str, restart_policies: Sequence[str]) -> list[FieldError]:
    """What is wrong with a pod spec."""
    errors: list[FieldError] = []
    containers = spec.get("containers") or []
    if not containers:
        errors.append(required(f"{path}.containers"))
    volumes = _validate_volumes(spec, path, errors)
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            _validate_container(container, f"{path}.{group}[{index}]", names, volumes, errors)
    if spec["restartPolicy"] not in restart_policies:
        errors.append(not_supported(f"{path}.restartPolicy", spec["restartPolicy"], restart_policies))
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        errors.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0"))
    errors.extend(label_errors(spec.get("nodeSelector") or {}, f"{path}.nodeSelector"))
    return errors


def _validate_volumes(spec: Json, path: str, errors: list[FieldError]) -> set[str]:
    names: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or []):
        here = f"{path}.volumes[{index}]"
        name = volume.get("name") or ""
        if not name:
            errors.append(required(f"{here}.name"))
        elif name in names:
            errors.append(duplicate(f"{here}.name", name))
        elif problem := label_problem(name):
            errors.append(invalid(f"{here}.name", name, problem))
        sources = [key for key in volume if key != "name"]
        if not sources:
            volume["emptyDir"] = {}
        elif len(sources) > 1:
            errors.append(forbidden_field(f"{here}.{sources[1]}", "may not specify more than 1 volume type"))
        names.add(name)
    return names


def _validate_container(
    container: Json, path: str, names: set[str], volumes: set[str], errors: list[FieldError]
) -> None:
    name = container.get("name") or ""
    if not name:
        errors.append(required(f"{path}.name"))
    elif problem := label_problem(name):
        errors.append(invalid(f"{path}.name", name, problem))
    elif name in names:
        errors.append(duplicate(f"{path}.name", name))
    names.add(name)
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    _validate_resources(container.get("resources") or {}, f"{path}.resources", errors)
    _validate_ports(container.get("ports") or [], f"{path}.ports", errors)
    for index, env in enumerate(container.get("env") or []):
        if not env.get("name"):
            errors.append(required(f"{path}.env[{index}].name"))
        if env.get("value") and env.get("valueFrom"):
            errors.append(
                invalid(f"{path}.env[{index}].valueFrom", "", "may not be specified when `value` is not empty")
            )
    for index, mount in enumerate(container.get("volumeMounts") or []):
        here = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            errors.append(FieldError(f"{here}.name", "FieldValueNotFound", f'Not found: "{mount.get("name", "")}"'))
        if not mount.get("mountPath"):
            errors.append(required(f"{here}.mountPath"))


def _validate_ports(ports: list[Json], path: str, errors: list[FieldError]) -> None:
    names: set[str] = set()
    for index, port in enumerate(ports):
        here, name, number = f"{path}[{index}]", port.get("name") or "", port.get("containerPort", 0)
        if problems := port_name_problems(name) if name else []:
            errors.extend(invalid(f"{here}.name", name, problem) for problem in problems)
        elif name in names:
            errors.append(duplicate(f"{here}.name", name))
        names |= {name} if name else set()
        if number == 0:
            errors.append(required(f"{here}.containerPort"))
        elif not isinstance(number, int) or not 0 < number < 65536:
            errors.append(invalid(f"{here}.containerPort", number, "must be between 1 and 65535, inclusive"))
        if port.get("protocol", "TCP") not in _PROTOCOLS:
            errors.append(not_supported(f"{here}.protocol", port["protocol"], _PROTOCOLS))


def _validate_resources(resources: Json, path: str, errors: list[FieldError]) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name, quantity in requests.items():
        if name in limits and parse_quantity(quantity) > parse_quantity(limits[name]):
            detail = f"must be less than or equal to {name} limit of {limits[name]}"
            errors.append(invalid(f"{path}.requests", str(quantity), detail))
        elif "/" in name and name not in limits:
            errors.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))


def _default_requests(pod: Json) -> None:
    """What is limited is requested. Only pods get this: their templates stay as they were written."""
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        resources = container["resources"]
        if isinstance(resources.get("limits"), dict):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def _default_pod(pod: Json) -> None:
    default_pod_spec(pod.setdefault("spec", {}))
    _default_requests(pod["spec"])
    pod["spec"].setdefault("enableServiceLinks", True)
    pod["spec"].setdefault("serviceAccountName", "default")
    pod["spec"].setdefault("serviceAccount", pod["spec"]["serviceAccountName"])
    pod["spec"].setdefault("preemptionPolicy", "PreemptLowerPriority")
    pod["spec"].setdefault("priority", 0)


def _new_pod(pod: Json) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": _quality_of_service(pod["spec"])}


def _quality_of_service(spec: Json) -> str:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    resources = [container.get("resources") or {} for container in containers]
    if not any(item.get("requests") or item.get("limits") for item in resources):
        return "BestEffort"
    fixed = all(
        {"cpu", "memory"} <= set(item.get("limits") or {}) and item.get("requests", item["limits"]) == item["limits"]
        for item in resources
    )
    return "Guaranteed" if fixed else "Burstable"


def _validate_pod(pod: Json, old: Json | None) -> list[FieldError]:
    if old is None:
        return validate_pod_spec(pod["spec"], "spec", ("Always", "OnFailure", "Never"))
    before, after = _fixed_pod_spec(old["spec"]), _fixed_pod_spec(pod["spec"])
    if before != after:
        return [
            forbidden_field(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`,"
                "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
                "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
                "previously negative)",
            )
        ]
    return []


def _fixed_pod_spec(spec: Json) -> Json:
    fixed = {key: value for key, value in spec.items() if key not in _UPDATABLE_POD_SPEC}
    for group in ("containers", "initContainers"):
        if group in fixed:
            fixed[group] = [
                {key: value for key, value in container.items() if key not in ("image", "imagePullPolicy")}
                for container in fixed[group]
            ]
    return fixed


def _pod_grace(pod: Json) -> int:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(spec.get("terminationGracePeriodSeconds", 30))


POD = KindRules(default=_default_pod, prepare_create=_new_pod, validate=_validate_pod, grace_period=_pod_grace)
