"""Condition types and reasons: the words that programs may rely on."""

from enum import StrEnum


class ConditionType(StrEnum):
    """Facts about a resource. All are positive: True is where a resource is headed, Failed and Suspended apart."""

    ACCEPTED = "Accepted"
    """The spec makes sense here: its references resolve, its node pool and volumes exist."""
    FITS = "Fits"
    """The memory estimate is within what the node pool's GPUs, or the pod's memory, offer."""
    LAUNCHED = "Launched"
    """The training job of the present attempt exists."""
    SUCCEEDED = "Succeeded"
    """The model is complete at its place."""
    FAILED = "Failed"
    """The resource has ended without a result and will not be tried again."""
    SUSPENDED = "Suspended"
    """The resource holds no pods because someone asked for that (spec.suspend, or Kueue)."""


class Reason(StrEnum):
    """Why a condition has its status."""

    VALID = "Valid"
    CONTROLLER_NOT_AVAILABLE = "ControllerNotAvailable"
    FEATURE_NOT_AVAILABLE = "FeatureNotAvailable"
    INVALID_SPEC = "InvalidSpec"
    NAME_TOO_LONG = "NameTooLong"
    NODE_POOL_UNKNOWN = "NodePoolUnknown"
    TOO_MANY_GPUS = "TooManyGpus"
    WORKSPACE_MISSING = "WorkspaceMissing"
    VOLUME_MISSING = "VolumeMissing"
    CONFIG_MAP_MISSING = "ConfigMapMissing"
    FILE_URI_NOT_ALLOWED = "FileUriNotAllowed"
    HOST_NOT_ALLOWED = "HostNotAllowed"
    REFERENCE_PENDING = "ReferencePending"
    REFERENCE_FAILED = "ReferenceFailed"
    REFERENCE_CYCLE = "ReferenceCycle"

    WITHIN_MEMORY = "WithinMemory"
    EXCEEDS_MEMORY = "ExceedsMemory"
    SIZE_UNKNOWN = "SizeUnknown"

    WAITING = "Waiting"
    JOB_CREATED = "JobCreated"
    RETRYING = "Retrying"
    PODS_PENDING = "PodsPending"
    RUNNING = "Running"
    NOT_FINISHED = "NotFinished"

    COMPLETED = "Completed"
    NOT_SUSPENDED = "NotSuspended"
    SUSPENDED_BY_USER = "SuspendedByUser"
    SUSPENDED_BY_QUEUE = "SuspendedByQueue"

    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NOT_FAILED = "NotFailed"


class FailureReason(StrEnum):
    """Why a training process ended without a model."""

    DATA_NOT_FOUND = "DataNotFound"
    DATA_EMPTY = "DataEmpty"
    DATA_MALFORMED = "DataMalformed"
    DATA_TOO_LONG = "DataTooLong"
    TEMPLATE_FAILED = "TemplateFailed"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_INVALID = "ModelInvalid"
    MODEL_UNSAFE = "ModelUnsafe"
    DIGEST_MISMATCH = "DigestMismatch"
    CONFIG_INVALID = "ConfigInvalid"
    OUT_OF_MEMORY = "OutOfMemory"
    DISK_FULL = "DiskFull"
    VOLUME_READ_ONLY = "VolumeReadOnly"
    WORKER_LOST = "WorkerLost"
    LOSS_NOT_FINITE = "LossNotFinite"
    CRASHED = "Crashed"
    KILLED = "Killed"
    EVICTED = "Evicted"
    IMAGE_MISSING = "ImageMissing"
