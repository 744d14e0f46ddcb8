"""Condition types and reasons: the words that programs may rely on."""

from alidade_crds.words import Word


class ConditionType(Word):
    """Facts about a resource. All are positive: True is where a resource is headed, Failed and Suspended apart."""

    ACCEPTED = "Accepted", "The spec makes sense here: its references resolve, its node pool and volumes exist."
    FITS = "Fits", "The memory estimate is within what the node pool's GPUs, or the pod's memory, offer."
    LAUNCHED = "Launched", "The training job of the present attempt exists."
    SUCCEEDED = "Succeeded", "The result is complete at its place."
    FAILED = "Failed", "The resource has ended without a result and is not tried again."
    SUSPENDED = "Suspended", "The resource holds no pods because someone asked for that."


class Reason(Word):
    """Why a condition has its status."""

    VALID = "Valid", "Nothing in the spec stands against launching."
    CONTROLLER_NOT_AVAILABLE = "ControllerNotAvailable", "This release stores the kind but does not act on it yet."
    FEATURE_NOT_AVAILABLE = "FeatureNotAvailable", "A field asks for something that this release cannot do."
    INVALID_SPEC = "InvalidSpec", "A field has a value that cannot be used; the message names it."
    NAME_TOO_LONG = "NameTooLong", "Pod names made from metadata.name would be too long."
    NODE_POOL_UNKNOWN = "NodePoolUnknown", "compute.nodePool is not in the operator's configuration."
    TOO_MANY_GPUS = "TooManyGpus", "compute.gpusPerWorker is more than a node of the pool has."
    WORKSPACE_MISSING = "WorkspaceMissing", "The namespace has no workspace volume and the spec names no output."
    VOLUME_MISSING = "VolumeMissing", "A pvc:// address names a claim that does not exist."
    CONFIG_MAP_MISSING = "ConfigMapMissing", "A configmap:// address names a ConfigMap or key that does not exist."
    FILE_URI_NOT_ALLOWED = "FileUriNotAllowed", "file:// addresses are for the local cluster."
    HOST_NOT_ALLOWED = "HostNotAllowed", "An address points to a host that pods may not reach."
    REFERENCE_PENDING = "ReferencePending", "A referenced resource does not exist yet or has not finished."
    REFERENCE_FAILED = "ReferenceFailed", "A referenced resource has failed."
    REFERENCE_CYCLE = "ReferenceCycle", "Resources refer to one another in a circle."
    TRAINING_OPERATOR_MISSING = "TrainingOperatorMissing", "The cluster does not know PyTorchJobs."

    WITHIN_MEMORY = "WithinMemory", "The estimate is within the memory there is."
    EXCEEDS_MEMORY = "ExceedsMemory", "The estimate is above the memory there is; the message says what would fit."
    SIZE_UNKNOWN = "SizeUnknown", "The model's size is not known before it is loaded; set model.parameters."

    WAITING = "Waiting", "An earlier condition is not True."
    JOB_CREATED = "JobCreated", "The training job exists."
    LAUNCH_REFUSED = "LaunchRefused", "The API server refused the training job; the message has its words."
    RETRYING = "Retrying", "An attempt failed; the next one starts after a delay."
    PODS_PENDING = "PodsPending", "Pods wait for a node or a volume."
    RUNNING = "Running", "Pods are running."
    NOT_FINISHED = "NotFinished", "The resource is still on its way."

    COMPLETED = "Completed", "The result is complete."
    NOT_SUSPENDED = "NotSuspended", "Nobody asked for suspension."
    SUSPENDED_BY_USER = "SuspendedByUser", "spec.suspend is true."
    SUSPENDED_BY_QUEUE = "SuspendedByQueue", "Kueue has not admitted the job, or has taken its quota back."

    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded", "backoffLimit attempts failed after the first."
    DEADLINE_EXCEEDED = "DeadlineExceeded", "activeDeadlineSeconds passed."
    NOT_FAILED = "NotFailed", "Nothing has failed for good."


class FailureReason(Word):
    """Why a training process ended without a model."""

    DATA_NOT_FOUND = "DataNotFound", "No file at the dataset's address."
    DATA_EMPTY = "DataEmpty", "The dataset has no record that can be trained on."
    DATA_MALFORMED = "DataMalformed", "A file or record is not of a known shape; the message names the line."
    DATA_TOO_LONG = "DataTooLong", "Every record is longer than dataset.maxLength."
    TEMPLATE_FAILED = "TemplateFailed", "The chat template cannot render a record."
    MODEL_NOT_FOUND = "ModelNotFound", "No model at the address."
    MODEL_INVALID = "ModelInvalid", "The folder is not a complete model in Hugging Face format."
    MODEL_UNSAFE = "ModelUnsafe", "The weights are a pickle, which can run code; only safetensors are loaded."
    DIGEST_MISMATCH = "DigestMismatch", "The model is not the one that the platform made there."
    CONFIG_INVALID = "ConfigInvalid", "Settings do not go together; the message names them."
    OUT_OF_MEMORY = "OutOfMemory", "A process ran out of memory; the message names the settings that need less."
    DISK_FULL = "DiskFull", "The output volume is full."
    VOLUME_READ_ONLY = "VolumeReadOnly", "The output volume cannot be written."
    WORKER_LOST = "WorkerLost", "A peer process went away."
    LOSS_NOT_FINITE = "LossNotFinite", "The loss became NaN or infinite."
    REWARD_INVALID = "RewardInvalid", "A reward is NaN, the same for all answers, or fails; the message has a sample."
    KL_CEILING = "KlCeiling", "The policy went farther from its start than guardrails.klCeiling."
    LENGTH_COLLAPSED = "LengthCollapsed", "Answers became shorter than guardrails.minLengthRatio allows."
    DIVERSITY_COLLAPSED = "DiversityCollapsed", "Answers became more alike than guardrails.minDiversityRatio allows."
    REWARD_OVER_OPTIMIZED = "RewardOverOptimized", "The reward rose while the held-out score fell."
    CRASHED = "Crashed", "The process ended by an unexpected error; its log has the trace."
    KILLED = "Killed", "The process was killed from outside."
    EVICTED = "Evicted", "The pod was evicted from its node."
    IMAGE_MISSING = "ImageMissing", "The container image cannot be pulled."
    RESULT_LOST = "ResultLost", "The process ended well, but its result could not be read."
