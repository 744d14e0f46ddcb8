"""The pods and Services of a PyTorchJob: names, labels, environment (training-operator 1.9)."""

from __future__ import annotations

import copy

from alidade_local.objects import Object, controller_reference, name_of, namespace_of
from alidade_local.resources import PYTORCH_JOBS

OPERATOR_NAME = "pytorchjob-controller"
LABEL_PREFIX = "training.kubeflow.org"
OPERATOR_LABEL = f"{LABEL_PREFIX}/operator-name"
JOB_NAME_LABEL = f"{LABEL_PREFIX}/job-name"
REPLICA_TYPE_LABEL = f"{LABEL_PREFIX}/replica-type"
REPLICA_INDEX_LABEL = f"{LABEL_PREFIX}/replica-index"
JOB_ROLE_LABEL = f"{LABEL_PREFIX}/job-role"
CONTAINER = "pytorch"
PORT_NAME = "pytorchjob-port"
REPLICA_TYPES = ("Master", "Worker")


def replica_specs(job: Object) -> dict[str, Object]:
    """The replica specifications by type, Master first."""
    specs: dict[str, Object] = job["spec"]["pytorchReplicaSpecs"]
    return {replica_type: specs[replica_type] for replica_type in REPLICA_TYPES if specs.get(replica_type)}


def replicas_of(spec: Object) -> int:
    replicas = spec.get("replicas")
    return 1 if replicas is None else int(replicas)


def restart_policy_of(spec: Object) -> str:
    return str(spec.get("restartPolicy") or "OnFailure")


def total_replicas(job: Object) -> int:
    return sum(replicas_of(spec) for spec in replica_specs(job).values())


def job_labels(job: Object) -> dict[str, str]:
    return {OPERATOR_LABEL: OPERATOR_NAME, JOB_NAME_LABEL: name_of(job)}


def replica_labels(job: Object, replica_type: str) -> dict[str, str]:
    return job_labels(job) | {REPLICA_TYPE_LABEL: replica_type.lower()}


def replica_name(job: Object, replica_type: str, index: int) -> str:
    return f"{name_of(job)}-{replica_type.lower()}-{index}"


def declared_port(job: Object, replica_type: str) -> int | None:
    """The port that the replica's container declares for the rendezvous, if it declares one."""
    for container in replica_specs(job)[replica_type]["template"]["spec"]["containers"]:
        if container["name"] == CONTAINER:
            for port in container.get("ports") or []:
                if port.get("name") == PORT_NAME:
                    return int(port["containerPort"])
    return None


def build_pod(job: Object, replica_type: str, index: int, default_port: int) -> Object:
    """The pod of one replica.

    The original gives workers an init container that waits for the master's name; here the kubelet does that wait.
    """
    spec = replica_specs(job)[replica_type]
    template = copy.deepcopy(spec["template"])
    metadata = template.get("metadata") or {}
    labels = (metadata.get("labels") or {}) | replica_labels(job, replica_type) | {REPLICA_INDEX_LABEL: str(index)}
    is_master = replica_type == "Master" or ("Master" not in replica_specs(job) and index == 0)
    if is_master:
        labels[JOB_ROLE_LABEL] = "master"
    pod_spec: Object = template["spec"]
    policy = restart_policy_of(spec)
    pod_spec["restartPolicy"] = "Never" if policy == "ExitCode" else policy
    for container in pod_spec["containers"]:
        if container["name"] == CONTAINER and declared_port(job, replica_type) is None:
            container["ports"] = [
                *(container.get("ports") or []),
                {"name": PORT_NAME, "containerPort": default_port, "protocol": "TCP"},
            ]
        # Appended, so that of two variables of one name the controller's is the one that counts.
        container["env"] = [*(container.get("env") or []), *environment(job, replica_type, index, default_port)]
    return {
        "metadata": {
            "name": replica_name(job, replica_type, index),
            "namespace": namespace_of(job),
            "labels": labels,
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [controller_reference(job, PYTORCH_JOBS.api_version, PYTORCH_JOBS.kind)],
        },
        "spec": pod_spec,
    }


def build_service(job: Object, replica_type: str, index: int, default_port: int) -> Object:
    """The headless Service that gives one replica its name."""
    labels = replica_labels(job, replica_type) | {REPLICA_INDEX_LABEL: str(index)}
    containers = replica_specs(job)[replica_type]["template"]["spec"]["containers"]
    declared = next((c.get("ports") or [] for c in containers if c["name"] == CONTAINER), [])
    ports = [
        {"name": port["name"], "port": port["containerPort"], "targetPort": port["containerPort"], "protocol": "TCP"}
        for port in declared
        if port.get("name")
    ]
    if declared_port(job, replica_type) is None:
        ports.append({"name": PORT_NAME, "port": default_port, "targetPort": default_port, "protocol": "TCP"})
    return {
        "metadata": {
            "name": replica_name(job, replica_type, index),
            "namespace": namespace_of(job),
            "labels": labels,
            "ownerReferences": [controller_reference(job, PYTORCH_JOBS.api_version, PYTORCH_JOBS.kind)],
        },
        "spec": {"clusterIP": "None", "selector": labels, "ports": ports},
    }


def environment(job: Object, replica_type: str, index: int, default_port: int) -> list[Object]:
    """The variables by which torch.distributed and torchrun find their peers."""
    specs = replica_specs(job)
    values = {"PYTHONUNBUFFERED": "1"}
    if "Master" in specs:
        port = str(declared_port(job, "Master") or default_port)
        address = replica_name(job, "Master", 0)
        rank = str(index if replica_type == "Master" else index + 1)
        values |= {
            "MASTER_PORT": port,
            "PET_MASTER_PORT": port,
            "MASTER_ADDR": address,
            "PET_MASTER_ADDR": address,
            "WORLD_SIZE": str(total_replicas(job) * _processes(job)),
            "RANK": rank,
            "PET_NODE_RANK": rank,
        }
    elastic = job["spec"].get("elasticPolicy")
    values["PET_NPROC_PER_NODE"] = str((elastic or {}).get("nProcPerNode") or _processes_setting(job))
    if elastic:
        values |= _elastic_environment(job, elastic, default_port)
    else:
        values["PET_NNODES"] = str(total_replicas(job))
    return [{"name": name, "value": value} for name, value in values.items()]


def _processes_setting(job: Object) -> str:
    return str(job["spec"].get("nprocPerNode") or "auto")


def _processes(job: Object) -> int:
    """Processes per node as far as the controller can tell: words such as auto count as one."""
    setting = _processes_setting(job)
    return int(setting) if setting.isdigit() else 1


def _elastic_environment(job: Object, elastic: Object, default_port: int) -> dict[str, str]:
    host = elastic.get("rdzvHost") or replica_name(job, "Worker", 0)
    port = elastic.get("rdzvPort") or declared_port(job, "Worker") or default_port
    workers = replicas_of(replica_specs(job)["Worker"])
    fewest, most = elastic.get("minReplicas"), elastic.get("maxReplicas")
    bounded = fewest is not None and most is not None
    values = {
        "PET_RDZV_ENDPOINT": f"{host}:{port}",
        "PET_RDZV_BACKEND": elastic.get("rdzvBackend") or "c10d",
        "PET_NNODES": f"{fewest}:{most}" if bounded else str(workers),
    }
    if elastic.get("maxRestarts") is not None:
        values["PET_MAX_RESTARTS"] = str(elastic["maxRestarts"])
    if elastic.get("rdzvId"):
        values["PET_RDZV_ID"] = elastic["rdzvId"]
    if elastic.get("rdzvConf"):
        values["PET_RDZV_CONF"] = ",".join(f"{pair['key']}={pair['value']}" for pair in elastic["rdzvConf"])
    if elastic.get("standalone"):
        values["PET_STANDALONE"] = ""
    return values
