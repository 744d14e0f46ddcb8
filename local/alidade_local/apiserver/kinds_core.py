"""Defaults and rules of the core kinds, as far as kubectl, operators and this project's controllers rely on them."""

import base64
import re
from collections.abc import Sequence
from typing import Any

from alidade_local.apiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required
from alidade_local.apiserver.kinds import KindRules
from alidade_local.apiserver.names import label_errors, label_problem, label_value_errors

Json = dict[str, Any]

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
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        tag = str(container.get("image", "")).rpartition("/")[2].partition(":")[2]
        container["imagePullPolicy"] = (
            "Always" if tag in ("", "latest") and "@" not in str(container.get("image")) else "IfNotPresent"
        )
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    resources = container["resources"]
    if isinstance(resources.get("limits"), dict):
        requests = resources.setdefault("requests", {})
        for name, quantity in resources["limits"].items():
            requests.setdefault(name, quantity)
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
    if spec["restartPolicy"] not in restart_policies:
        errors.append(not_supported(f"{path}.restartPolicy", spec["restartPolicy"], restart_policies))
    containers = spec.get("containers") or []
    if not containers:
        errors.append(required(f"{path}.containers"))
    volumes = _validate_volumes(spec, path, errors)
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            _validate_container(container, f"{path}.{group}[{index}]", names, volumes, errors)
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
    for index, port in enumerate(container.get("ports") or []):
        number = port.get("containerPort", 0)
        if not isinstance(number, int) or not 0 < number < 65536:
            errors.append(
                invalid(f"{path}.ports[{index}].containerPort", number, "must be between 1 and 65535, inclusive")
            )
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


def _default_pod(pod: Json) -> None:
    default_pod_spec(pod.setdefault("spec", {}))
    pod["spec"].setdefault("enableServiceLinks", True)
    pod["spec"].setdefault("serviceAccountName", "default")
    pod["spec"].setdefault("serviceAccount", pod["spec"]["serviceAccountName"])
    pod["spec"].setdefault("preemptionPolicy", "PreemptLowerPriority")
    pod["spec"].setdefault("priority", 0)


def _new_pod(pod: Json) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": _quality_of_service(pod["spec"])}


def _quality_of_service(spec: Json) -> str:
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
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


def _default_namespace(namespace: Json) -> None:
    metadata = namespace["metadata"]
    if metadata.get("name"):
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    namespace.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])


def _new_namespace(namespace: Json) -> None:
    namespace["status"] = {"phase": "Active"}


NAMESPACE = KindRules(default=_default_namespace, prepare_create=_new_namespace, counts_generation=False)


def _default_service(service: Json) -> None:
    spec = service.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")


def _validate_service(service: Json, old: Json | None) -> list[FieldError]:
    spec = service["spec"]
    errors: list[FieldError] = []
    types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec["type"] not in types:
        errors.append(not_supported("spec.type", spec["type"], types))
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec["type"] != "ExternalName":
        errors.append(required("spec.ports"))
    for index, port in enumerate(ports):
        number = port.get("port", 0)
        if not isinstance(number, int) or not 0 < number < 65536:
            errors.append(invalid(f"spec.ports[{index}].port", number, "must be between 1 and 65535, inclusive"))
        if len(ports) > 1 and not port.get("name"):
            errors.append(required(f"spec.ports[{index}].name"))
    if old is not None and old["spec"].get("clusterIP") and spec.get("clusterIP") != old["spec"]["clusterIP"]:
        errors.append(invalid("spec.clusterIPs[0]", spec.get("clusterIP", ""), "may not change once set"))
    for key, value in (spec.get("selector") or {}).items():
        errors.extend(label_value_errors(value, f"spec.selector.{key}"))
    return errors


def _keep_service_address(service: Json, old: Json) -> None:
    for name in ("clusterIP", "clusterIPs"):
        if old["spec"].get(name) and not service["spec"].get(name):
            service["spec"][name] = old["spec"][name]


def _new_service(service: Json) -> None:
    service["status"] = {"loadBalancer": {}}


SERVICE = KindRules(
    default=_default_service,
    prepare_create=_new_service,
    prepare_update=_keep_service_address,
    validate=_validate_service,
    counts_generation=False,
)


def _validate_data_keys(obj: Json, field: str) -> list[FieldError]:
    return [
        invalid(
            f"{field}[{key}]",
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        )
        for key in obj.get(field) or {}
        if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key)
    ]


def _immutable_errors(obj: Json, old: Json | None, fields: Sequence[str]) -> list[FieldError]:
    if old is None or not old.get("immutable"):
        return []
    errors = [
        forbidden_field(name, "field is immutable when `immutable` is set")
        for name in fields
        if (obj.get(name) or {}) != (old.get(name) or {})
    ]
    if not obj.get("immutable"):
        errors.append(forbidden_field("immutable", "field is immutable when `immutable` is set"))
    return errors


def _validate_config_map(obj: Json, old: Json | None) -> list[FieldError]:
    errors = [*_validate_data_keys(obj, "data"), *_validate_data_keys(obj, "binaryData")]
    return errors + _immutable_errors(obj, old, ("data", "binaryData"))


CONFIG_MAP = KindRules(validate=_validate_config_map, counts_generation=False)


def _default_secret(secret: Json) -> None:
    secret.setdefault("type", "Opaque")
    texts = secret.pop("stringData", None) or {}
    if texts:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in texts.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}


def _validate_secret(secret: Json, old: Json | None) -> list[FieldError]:
    errors = _validate_data_keys(secret, "data")
    if old is not None and secret["type"] != old["type"]:
        errors.append(invalid("type", secret["type"], "field is immutable"))
    return errors + _immutable_errors(secret, old, ("data",))


SECRET = KindRules(default=_default_secret, validate=_validate_secret, counts_generation=False)


def _default_claim(claim: Json) -> None:
    claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _new_claim(claim: Json) -> None:
    claim["status"] = {"phase": "Pending"}


def _validate_claim(claim: Json, old: Json | None) -> list[FieldError]:
    spec = claim["spec"]
    errors: list[FieldError] = []
    if old is not None:
        changeable = ("resources", "volumeName", "volumeAttributesClassName")
        if {k: v for k, v in spec.items() if k not in changeable} != {
            k: v for k, v in old["spec"].items() if k not in changeable
        }:
            errors.append(
                forbidden_field(
                    "spec",
                    "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
                    "bound claims",
                )
            )
        return errors
    if not spec.get("accessModes"):
        errors.append(required("spec.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        errors.append(required("spec.resources[storage]"))
    return errors


PERSISTENT_VOLUME_CLAIM = KindRules(
    default=_default_claim, prepare_create=_new_claim, validate=_validate_claim, counts_generation=False
)


def _validate_event(event: Json, _: Json | None) -> list[FieldError]:
    involved = (event.get("involvedObject") or {}).get("namespace", "")
    namespace = event["metadata"].get("namespace", "")
    if involved != namespace and not (not involved and namespace == "default"):
        return [invalid("involvedObject.namespace", involved, "does not match event.namespace")]
    return []


def _default_event(event: Json) -> None:
    event.setdefault("involvedObject", {})
    event.setdefault("source", {})
    event.setdefault("reportingComponent", "")
    event.setdefault("reportingInstance", "")


EVENT = KindRules(default=_default_event, validate=_validate_event, counts_generation=False)

_RBAC = "rbac.authorization.k8s.io"


def _default_binding(binding: Json) -> None:
    reference = binding.setdefault("roleRef", {})
    reference.setdefault("apiGroup", _RBAC)
    for subject in binding.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", _RBAC)


def _validate_binding(binding: Json, old: Json | None) -> list[FieldError]:
    reference = binding["roleRef"]
    errors: list[FieldError] = []
    if reference.get("kind") not in ("Role", "ClusterRole"):
        errors.append(not_supported("roleRef.kind", reference.get("kind", ""), ("Role", "ClusterRole")))
    if not reference.get("name"):
        errors.append(required("roleRef.name"))
    if old is not None and reference != old["roleRef"]:
        errors.append(invalid("roleRef", reference, "cannot change roleRef"))
    for index, subject in enumerate(binding.get("subjects") or ()):
        path = f"subjects[{index}]"
        if not subject.get("name"):
            errors.append(required(f"{path}.name"))
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            errors.append(not_supported(f"{path}.kind", subject.get("kind", ""), ("ServiceAccount", "User", "Group")))
        elif subject["kind"] == "ServiceAccount" and not subject.get("namespace") and binding["kind"] != "RoleBinding":
            errors.append(required(f"{path}.namespace"))
    return errors


ROLE_BINDING = KindRules(default=_default_binding, validate=_validate_binding, counts_generation=False)
