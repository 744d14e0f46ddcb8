"""Protobuf bodies of the messages that `kubectl create` and `kubectl auth` send.

kubectl encodes what it builds itself (`create configmap`, `create job`, `auth can-i`) as protobuf and does not fall
back to JSON when that is refused. Only those messages are read, with the fields that kubectl can set; anything else is
answered 415 with the name of what was not understood. Field numbers are those of Kubernetes' generated.proto files.
"""

import base64
from collections.abc import Iterator
from typing import Any

from alidade_local.apiserver.errors import ApiError, bad_request

Json = dict[str, Any]

PROTOBUF_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

# Field types: `string`, `int`, `bool` are left out when zero, as Go's omitempty does; with `?` they are pointers and
# kept. `[x]` repeats; `{x}` maps strings to x; a capital letter begins the name of a message; `-` is ignored (status).
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {}


def _message(name: str, fields: str) -> None:
    entries = (entry.split() for entry in fields.split(","))
    _MESSAGES[name] = {int(number): (field, kind) for number, field, kind in entries}


_message(
    "ObjectMeta",
    "1 name string, 2 generateName string, 3 namespace string, 4 selfLink string, 5 uid string, "
    "6 resourceVersion string, 7 generation int, 8 creationTimestamp -, 9 deletionTimestamp -, "
    "10 deletionGracePeriodSeconds int?, 11 labels {string}, 12 annotations {string}, "
    "13 ownerReferences [OwnerReference], 14 finalizers [string], 17 managedFields -",
)
_message(
    "OwnerReference",
    "1 kind string, 3 name string, 4 uid string, 5 apiVersion string, 6 controller bool?, 7 blockOwnerDeletion bool?",
)
_message("LabelSelector", "1 matchLabels {string}, 2 matchExpressions [LabelSelectorRequirement]")
_message("LabelSelectorRequirement", "1 key string, 2 operator string, 3 values [string]")
_message("Quantity", "1 string string")
_message("ConfigMap", "1 metadata ObjectMeta, 2 data {string}, 3 binaryData {bytes}, 4 immutable bool?")
_message(
    "Secret",
    "1 metadata ObjectMeta, 2 data {bytes}, 3 type string, 4 stringData {string}, 5 immutable bool?",
)
_message("Namespace", "1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status -")
_message("NamespaceSpec", "1 finalizers [string]")
_message(
    "ServiceAccount",
    "1 metadata ObjectMeta, 2 secrets [ObjectReference], 3 imagePullSecrets [LocalObjectReference], "
    "4 automountServiceAccountToken bool?",
)
_message("ObjectReference", "1 kind string, 2 namespace string, 3 name string, 4 uid string, 5 apiVersion string")
_message("LocalObjectReference", "1 name string")
_message("Service", "1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status -")
_message(
    "ServiceSpec",
    "1 ports [ServicePort], 2 selector {string}, 3 clusterIP string, 4 type string, 5 externalIPs [string], "
    "7 sessionAffinity string, 8 loadBalancerIP string, 9 loadBalancerSourceRanges [string], 10 externalName string, "
    "11 externalTrafficPolicy string, 12 healthCheckNodePort int, 13 publishNotReadyAddresses bool, "
    "18 clusterIPs [string], 19 ipFamilies [string]",
)
_message(
    "ServicePort",
    "1 name string, 2 protocol string, 3 port int, 4 targetPort IntOrString, 5 nodePort int, 6 appProtocol string?",
)
_message("IntOrString", "1 type int, 2 intVal int, 3 strVal string")
_message("ResourceQuota", "1 metadata ObjectMeta, 2 spec ResourceQuotaSpec, 3 status -")
_message("ResourceQuotaSpec", "1 hard {Quantity}, 2 scopes [string]")
_message("Deployment", "1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status -")
_message(
    "DeploymentSpec",
    "1 replicas int?, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy DeploymentStrategy, "
    "5 minReadySeconds int, 6 revisionHistoryLimit int?, 7 paused bool, 9 progressDeadlineSeconds int?",
)
_message("DeploymentStrategy", "1 type string")
_message("PodTemplateSpec", "1 metadata ObjectMeta, 2 spec PodSpec")
_message(
    "PodSpec",
    "2 containers [Container], 3 restartPolicy string, 4 terminationGracePeriodSeconds int?, "
    "5 activeDeadlineSeconds int?, 6 dnsPolicy string, 7 nodeSelector {string}, 8 serviceAccountName string, "
    "9 serviceAccount string, 10 nodeName string, 11 hostNetwork bool, 12 hostPID bool, 13 hostIPC bool, "
    "16 hostname string, 17 subdomain string, 19 schedulerName string, 24 priorityClassName string",
)
_message(
    "Container",
    "1 name string, 2 image string, 3 command [string], 4 args [string], 5 workingDir string, "
    "6 ports [ContainerPort], 7 env [EnvVar], 8 resources ResourceRequirements, 13 terminationMessagePath string, "
    "14 imagePullPolicy string, 16 stdin bool, 17 stdinOnce bool, 18 tty bool, 20 terminationMessagePolicy string",
)
_message("ContainerPort", "1 name string, 2 hostPort int, 3 containerPort int, 4 protocol string, 5 hostIP string")
_message("EnvVar", "1 name string, 2 value string")
_message("ResourceRequirements", "1 limits {Quantity}, 2 requests {Quantity}")
_message("Job", "1 metadata ObjectMeta, 2 spec JobSpec, 3 status -")
_message(
    "JobSpec",
    "1 parallelism int?, 2 completions int?, 3 activeDeadlineSeconds int?, 4 selector LabelSelector, "
    "5 manualSelector bool?, 6 template PodTemplateSpec, 7 backoffLimit int?, 8 ttlSecondsAfterFinished int?",
)
_message("Role", "1 metadata ObjectMeta, 2 rules [PolicyRule]")
_message("ClusterRole", "1 metadata ObjectMeta, 2 rules [PolicyRule]")
_message(
    "PolicyRule",
    "1 verbs [string], 2 apiGroups [string], 3 resources [string], 4 resourceNames [string], "
    "5 nonResourceURLs [string]",
)
_message("RoleBinding", "1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef")
_message("ClusterRoleBinding", "1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef")
_message("Subject", "1 kind string, 2 apiGroup string, 3 name string, 4 namespace string")
_message("RoleRef", "1 apiGroup string, 2 kind string, 3 name string")
_message("HorizontalPodAutoscaler", "1 metadata ObjectMeta, 2 spec HorizontalPodAutoscalerSpec, 3 status -")
_message(
    "HorizontalPodAutoscalerSpec",
    "1 scaleTargetRef CrossVersionObjectReference, 2 minReplicas int?, 3 maxReplicas int, 4 metrics [MetricSpec]",
)
_message("CrossVersionObjectReference", "1 kind string, 2 name string, 3 apiVersion string")
_message("MetricSpec", "1 type string, 4 resource ResourceMetricSource")
_message("ResourceMetricSource", "1 name string, 2 target MetricTarget")
_message("MetricTarget", "1 type string, 2 value Quantity, 3 averageValue Quantity, 4 averageUtilization int?")
_message("PodDisruptionBudget", "1 metadata ObjectMeta, 2 spec PodDisruptionBudgetSpec, 3 status -")
_message(
    "PodDisruptionBudgetSpec", "1 minAvailable IntOrString, 2 selector LabelSelector, 3 maxUnavailable IntOrString"
)
_message(
    "PriorityClass",
    "1 metadata ObjectMeta, 2 value int, 3 globalDefault bool, 4 description string, 5 preemptionPolicy string?",
)
_message("SelfSubjectAccessReview", "1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec, 3 status -")
_message(
    "SelfSubjectAccessReviewSpec",
    "1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes",
)
_message(
    "ResourceAttributes",
    "1 namespace string, 2 verb string, 3 group string, 4 version string, 5 resource string, 6 subresource string, "
    "7 name string",
)
_message("NonResourceAttributes", "1 path string, 2 verb string")
_message("SelfSubjectRulesReview", "1 metadata ObjectMeta, 2 spec SelfSubjectRulesReviewSpec, 3 status -")
_message("SelfSubjectRulesReviewSpec", "1 namespace string")
_message("SelfSubjectReview", "1 metadata ObjectMeta, 2 status -")
_message("TokenRequest", "1 metadata ObjectMeta, 2 spec TokenRequestSpec, 3 status -")
_message("TokenRequestSpec", "1 audiences [string], 3 boundObjectRef BoundObjectReference, 4 expirationSeconds int?")
_message("BoundObjectReference", "1 kind string, 2 apiVersion string, 3 name string, 4 uid string")
_message("Eviction", "1 metadata ObjectMeta, 2 deleteOptions DeleteOptions")
_message(
    "DeleteOptions",
    "1 gracePeriodSeconds int?, 2 preconditions Preconditions, 3 orphanDependents bool?, 4 propagationPolicy string?, "
    "5 dryRun [string]",
)
_message("Preconditions", "1 uid string?, 2 resourceVersion string?")


def decode_protobuf(body: bytes) -> Json:
    """The object of a protobuf body, in its JSON form."""
    if not body.startswith(_MAGIC):
        raise bad_request("the body of the request is not Kubernetes protobuf: it does not begin with 'k8s\\0'")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        names = {number: _text(value) for number, value in _fields(_bytes(envelope.get(1, b"")))}
        api_version, kind = names.get(1, ""), names.get(2, "")
        if kind not in _MESSAGES:
            raise _not_read(kind or "the message")
        return {"apiVersion": api_version, "kind": kind, **_decoded(_bytes(envelope.get(2, b"")), kind)}
    except (IndexError, ValueError) as error:
        raise bad_request(f"the body of the request is not valid protobuf: {error}") from None


def _not_read(what: str) -> ApiError:
    return ApiError(
        415, "UnsupportedMediaType", f"{what} is not read as protobuf; send it as application/json (kubectl apply does)"
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and raw values of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field is longer than its message")
            yield number, data[at : at + length]
            at += length
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is too long")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where a message is expected")
    return value


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()


def _decoded(data: bytes, message: str) -> Json:
    known = _MESSAGES[message]
    result: Json = {}
    for number, value in _fields(data):
        if number not in known:
            raise _not_read(f"field {number} of {message}")
        name, kind = known[number]
        if kind == "-":
            continue
        if kind.startswith("["):
            result.setdefault(name, []).append(_value(value, kind[1:-1]))
        elif kind.startswith("{"):
            key, item = _entry(_bytes(value), kind[1:-1])
            result.setdefault(name, {})[key] = item
        else:
            decoded = _value(value, kind.removesuffix("?"))
            if kind.endswith("?") or decoded not in ("", 0, False, {}):
                result[name] = decoded
    return result


def _entry(data: bytes, kind: str) -> tuple[str, Any]:
    parts = dict(_fields(data))
    return _text(parts.get(1, b"")), _value(parts.get(2, b""), kind)


def _value(value: int | bytes, kind: str) -> Any:
    if kind == "string":
        return _text(value)
    if kind == "bytes":
        return base64.b64encode(_bytes(value)).decode()
    if kind in ("int", "bool"):
        if not isinstance(value, int):
            raise ValueError("a message where a number is expected")
        return bool(value) if kind == "bool" else value - (1 << 64) if value >> 63 else value
    decoded = _decoded(_bytes(value), kind)
    if kind == "Quantity":
        return decoded.get("string", "0")
    if kind == "IntOrString":
        return decoded.get("strVal", "") if decoded.get("type") else decoded.get("intVal", 0)
    return decoded
