"""Columns of the built-in kinds, as `kubectl get` shows them."""

from typing import Any

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.pod_columns import POD_COLUMNS
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.scaling import selector_text
from alidade_local.apiserver.tables import AGE, NAME, Cell, TableColumn

Json = dict[str, Any]
Columns = tuple[TableColumn, ...]

_NONE = "<none>"
_UNSET = "<unset>"


def columns_of(resource: Resource) -> Columns:
    """The columns of a built-in resource."""
    return _COLUMNS.get(resource.key, (NAME, AGE))


def _at(path: str, absent: Any = _NONE) -> Cell:
    """The cell that shows the value at a dotted path."""
    steps = path.split(".")

    def cell(obj: Json) -> Any:
        value: Any = obj
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        return absent if value is None or value == "" else value

    return cell


def _text(name: str, cell: Cell | str, absent: Any = _NONE) -> TableColumn:
    return TableColumn(name, _at(cell, absent) if isinstance(cell, str) else cell)


def _count(name: str, path: str) -> TableColumn:
    return TableColumn(name, _at(path, 0), "integer")


def _wide(name: str, cell: Cell | str, absent: Any = _NONE) -> TableColumn:
    return TableColumn(name, _at(cell, absent) if isinstance(cell, str) else cell, priority=1)


def _created(obj: Json) -> str:
    return str(obj["metadata"].get("creationTimestamp") or "<unknown>")


def _size_of(*fields: str) -> Cell:
    return lambda obj: sum(len(obj.get(field) or ()) for field in fields)


def _containers(obj: Json) -> str:
    return ",".join(item["name"] for item in obj["spec"]["template"]["spec"].get("containers") or ())


def _images(obj: Json) -> str:
    return ",".join(item.get("image", "") for item in obj["spec"]["template"]["spec"].get("containers") or ())


def _selector(obj: Json) -> str:
    return selector_text(obj["spec"].get("selector")) or _NONE


_TEMPLATE = (_wide("Containers", _containers), _wide("Images", _images), _wide("Selector", _selector))


def _deployment_ready(obj: Json) -> str:
    return f"{(obj.get('status') or {}).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 0)}"


def _job_status(obj: Json) -> str:
    conditions = {item["type"]: item["status"] for item in (obj.get("status") or {}).get("conditions") or ()}
    for kind, shown in (
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ):
        if conditions.get(kind) == "True":
            return shown
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else "Running"


def _job_completions(obj: Json) -> str:
    done, spec = (obj.get("status") or {}).get("succeeded", 0), obj["spec"]
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallel = spec.get("parallelism") or 0
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _job_duration(obj: Json) -> str:
    status = obj.get("status") or {}
    if not status.get("startTime"):
        return ""
    if not status.get("completionTime"):
        return timestamps.age(status["startTime"])
    span = timestamps.parsed(status["completionTime"]) - timestamps.parsed(status["startTime"])
    return timestamps.duration(span.total_seconds())


def _service_ports(obj: Json) -> str:
    shown = []
    for port in obj["spec"].get("ports") or ():
        number = f"{port['port']}:{port['nodePort']}" if port.get("nodePort") else f"{port['port']}"
        shown.append(f"{number}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or _NONE


def _service_external(obj: Json) -> str:
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", _NONE))
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [item.get("ip") or item.get("hostname", "") for item in ingress] + list(spec.get("externalIPs") or ())
    if addresses:
        return ",".join(addresses)
    return "<pending>" if spec.get("type") == "LoadBalancer" else _NONE


def _labels_cell(path: str) -> Cell:
    find = _at(path, {})
    return lambda obj: ",".join(f"{key}={value}" for key, value in sorted(find(obj).items())) or _NONE


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _access_modes(path: str) -> Cell:
    find = _at(path, ())
    return lambda obj: ",".join(_MODES.get(mode, mode) for mode in find(obj))


def _claim_status(obj: Json) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str((obj.get("status") or {}).get("phase", "Pending"))


def _claim_of_volume(obj: Json) -> str:
    claim = obj["spec"].get("claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


def _node_status(obj: Json) -> str:
    ready = next(
        (item["status"] for item in (obj.get("status") or {}).get("conditions") or () if item["type"] == "Ready"), None
    )
    status = {"True": "Ready", "False": "NotReady"}.get(ready or "", "Unknown" if ready is None else "NotReady")
    return status + (",SchedulingDisabled" if (obj.get("spec") or {}).get("unschedulable") else "")


def _node_roles(obj: Json) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = [key.removeprefix(prefix) for key in obj["metadata"].get("labels") or () if key.startswith(prefix)]
    return ",".join(sorted(roles)) or _NONE


def _node_address(kind: str) -> Cell:
    def cell(obj: Json) -> str:
        addresses = (obj.get("status") or {}).get("addresses") or ()
        return next((item["address"] for item in addresses if item["type"] == kind), _NONE)

    return cell


def _event_last_seen(obj: Json) -> str:
    series = (obj.get("series") or {}).get("lastObservedTime")
    last = series or obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
    return timestamps.age(last)


def _event_object(obj: Json) -> str:
    involved = obj.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _event_source(obj: Json) -> str:
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent") or ""
    return f"{component}, {source['host']}" if source.get("host") else str(component)


def _event_first_seen(obj: Json) -> str:
    return timestamps.age(obj.get("firstTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp"))


def _event_count(obj: Json) -> int:
    return int((obj.get("series") or {}).get("count") or obj.get("count") or 1)


def _endpoints(obj: Json) -> str:
    shown = []
    for subset in obj.get("subsets") or ():
        ports = [port["port"] for port in subset.get("ports") or ()]
        for address in subset.get("addresses") or ():
            shown += [f"{address['ip']}:{port}" for port in ports] or [address["ip"]]
    more = f" + {len(shown) - 3} more..." if len(shown) > 3 else ""
    return ",".join(shown[:3]) + more or _NONE


def _slice_ports(obj: Json) -> str:
    return ",".join(str(port.get("port", "*")) for port in obj.get("ports") or ()) or _UNSET


def _slice_endpoints(obj: Json) -> str:
    addresses = [address for item in obj.get("endpoints") or () for address in item.get("addresses") or ()]
    more = f" + {len(addresses) - 3} more..." if len(addresses) > 3 else ""
    return ",".join(addresses[:3]) + more or _UNSET


def _hpa_reference(obj: Json) -> str:
    target = obj["spec"].get("scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _hpa_targets(obj: Json) -> str:
    return ", ".join(_hpa_target(metric) for metric in obj["spec"].get("metrics") or ()) or _NONE


def _hpa_target(metric: Json) -> str:
    """Present and wanted value of a metric; without a metrics API the first is never known."""
    source: Json = next((value for key, value in metric.items() if key != "type"), {})
    target = source.get("target") or {}
    wanted = str(target.get("averageValue") or target.get("value"))
    if target.get("averageUtilization") is not None:
        wanted = f"{target['averageUtilization']}%"
    elif metric.get("type") in ("Object", "External") and target.get("averageValue") is not None:
        wanted = f"{target['averageValue']} (avg)"
    name = f"{source['name']}: " if source.get("name") else ""
    return f"{name}<unknown>/{wanted}"


def _role_reference(obj: Json) -> str:
    reference = obj.get("roleRef") or {}
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


def _amount(path: str) -> Cell:
    find = _at(path, None)
    return lambda obj: "N/A" if find(obj) is None else str(find(obj))


_COLUMNS: dict[str, Columns] = {
    "pods.": POD_COLUMNS,
    "namespaces.": (NAME, _text("Status", "status.phase"), AGE),
    "services.": (
        NAME,
        _text("Type", "spec.type"),
        _text("Cluster-IP", "spec.clusterIP"),
        _text("External-IP", _service_external),
        _text("Port(s)", _service_ports),
        AGE,
        _wide("Selector", _labels_cell("spec.selector")),
    ),
    "endpoints.": (NAME, _text("Endpoints", _endpoints), AGE),
    "configmaps.": (NAME, TableColumn("Data", _size_of("data", "binaryData"), "integer"), AGE),
    "secrets.": (NAME, _text("Type", "type"), TableColumn("Data", _size_of("data"), "integer"), AGE),
    "serviceaccounts.": (NAME, TableColumn("Secrets", _size_of("secrets"), "integer"), AGE),
    "persistentvolumeclaims.": (
        NAME,
        _text("Status", _claim_status),
        _text("Volume", "spec.volumeName", ""),
        _text("Capacity", "status.capacity.storage", ""),
        _text("Access Modes", _access_modes("status.accessModes")),
        _text("StorageClass", "spec.storageClassName", ""),
        _text("VolumeAttributesClass", "spec.volumeAttributesClassName", _UNSET),
        AGE,
        _wide("VolumeMode", "spec.volumeMode", _UNSET),
    ),
    "persistentvolumes.": (
        NAME,
        _text("Capacity", "spec.capacity.storage", ""),
        _text("Access Modes", _access_modes("spec.accessModes")),
        _text("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", ""),
        _text("Status", "status.phase", ""),
        _text("Claim", _claim_of_volume),
        _text("StorageClass", "spec.storageClassName", ""),
        _text("VolumeAttributesClass", "spec.volumeAttributesClassName", _UNSET),
        _text("Reason", "status.reason", ""),
        AGE,
        _wide("VolumeMode", "spec.volumeMode", _UNSET),
    ),
    "nodes.": (
        NAME,
        _text("Status", _node_status),
        _text("Roles", _node_roles),
        AGE,
        _text("Version", "status.nodeInfo.kubeletVersion", ""),
        _wide("Internal-IP", _node_address("InternalIP")),
        _wide("External-IP", _node_address("ExternalIP")),
        _wide("OS-Image", "status.nodeInfo.osImage", "<unknown>"),
        _wide("Kernel-Version", "status.nodeInfo.kernelVersion", "<unknown>"),
        _wide("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "<unknown>"),
    ),
    "events.": (
        _text("Last Seen", _event_last_seen),
        _text("Type", "type", ""),
        _text("Reason", "reason", ""),
        _text("Object", _event_object),
        _wide("Subobject", "involvedObject.fieldPath", ""),
        _wide("Source", _event_source),
        _text("Message", lambda obj: str(obj.get("message", "")).strip()),
        _wide("First Seen", _event_first_seen),
        TableColumn("Count", _event_count, "integer", priority=1),
        TableColumn("Name", NAME.cell, format="name", priority=1),
    ),
    "deployments.apps": (
        NAME,
        _text("Ready", _deployment_ready),
        _count("Up-to-date", "status.updatedReplicas"),
        _count("Available", "status.availableReplicas"),
        AGE,
        *_TEMPLATE,
    ),
    "replicasets.apps": (
        NAME,
        _count("Desired", "spec.replicas"),
        _count("Current", "status.replicas"),
        _count("Ready", "status.readyReplicas"),
        AGE,
        *_TEMPLATE,
    ),
    "jobs.batch": (
        NAME,
        _text("Status", _job_status),
        _text("Completions", _job_completions),
        _text("Duration", _job_duration),
        AGE,
        *_TEMPLATE,
    ),
    "horizontalpodautoscalers.autoscaling": (
        NAME,
        _text("Reference", _hpa_reference),
        _text("Targets", _hpa_targets),
        _text("MinPods", "spec.minReplicas", _UNSET),
        _count("MaxPods", "spec.maxReplicas"),
        _count("Replicas", "status.currentReplicas"),
        AGE,
    ),
    "leases.coordination.k8s.io": (NAME, _text("Holder", "spec.holderIdentity", ""), AGE),
    "endpointslices.discovery.k8s.io": (
        NAME,
        _text("AddressType", "addressType"),
        _text("Ports", _slice_ports),
        _text("Endpoints", _slice_endpoints),
        AGE,
    ),
    "networkpolicies.networking.k8s.io": (
        NAME,
        _text("Pod-Selector", lambda obj: selector_text(obj["spec"].get("podSelector")) or _NONE),
        AGE,
    ),
    "poddisruptionbudgets.policy": (
        NAME,
        _text("Min Available", _amount("spec.minAvailable")),
        _text("Max Unavailable", _amount("spec.maxUnavailable")),
        _count("Allowed Disruptions", "status.disruptionsAllowed"),
        AGE,
    ),
    "roles.rbac.authorization.k8s.io": (NAME, _text("Created At", _created)),
    "clusterroles.rbac.authorization.k8s.io": (NAME, _text("Created At", _created)),
    "rolebindings.rbac.authorization.k8s.io": (NAME, _text("Role", _role_reference), AGE),
    "clusterrolebindings.rbac.authorization.k8s.io": (NAME, _text("Role", _role_reference), AGE),
    "priorityclasses.scheduling.k8s.io": (
        NAME,
        _count("Value", "value"),
        TableColumn("Global-Default", _at("globalDefault", False), "boolean"),
        AGE,
        _wide("PreemptionPolicy", "preemptionPolicy", "PreemptLowerPriority"),
    ),
    "storageclasses.storage.k8s.io": (
        NAME,
        _text("Provisioner", "provisioner"),
        _text("ReclaimPolicy", "reclaimPolicy", "Delete"),
        _text("VolumeBindingMode", "volumeBindingMode", "Immediate"),
        TableColumn("AllowVolumeExpansion", _at("allowVolumeExpansion", False), "boolean"),
        AGE,
    ),
    "customresourcedefinitions.apiextensions.k8s.io": (NAME, _text("Created At", _created)),
}
