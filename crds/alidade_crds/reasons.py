"""Condition types and reasons: the words that programs may rely on."""

from alidade_crds.words import Word


class ConditionType(Word):
    """Facts about a resource. All are positive: True is where a resource is headed, the last four apart."""

    ACCEPTED = "Accepted", "The spec makes sense here: its references resolve, its node pool and volumes exist."
    FITS = "Fits", "The memory estimate is within what the node pool's GPUs, or the pod's memory, offer."
    SFT_READY = "SFTReady", "The model that an AlignmentRun starts from is there."
    REWARD_MODEL_READY = "RewardModelReady", "Every reward of an AlignmentRun is there."
    LAUNCHED = "Launched", "The training job of the present attempt exists."
    ALIGNED = "Aligned", "The aligned model is complete at its place."
    EVALUATED = "Evaluated", "An AlignmentRun's Evaluation has its results, or the run has none."
    GATE_PASSED = "GatePassed", "The results are within every rule of the gate, or the run has none."
    SERVED = "Served", "The aligned model answers behind its endpoint, or the run serves none."
    QUANTIZED = "Quantized", "The model of a ModelServe's spec is quantized as asked, or needs no quantization."
    AVAILABLE = "Available", "A replica of a ModelServe answers; until Progressing is False, maybe with an older model."
    PROGRESSING = "Progressing", "The spec of a ModelServe is not what every replica serves yet, and work goes on."
    SCALING = "Scaling", "The number of a ModelServe's replicas follows the load."
    MONITORED = "Monitored", "Prometheus is told to scrape a ModelServe's pods; absent where nobody asks for that."
    SUCCEEDED = "Succeeded", "The result is complete at its place."
    FAILED = "Failed", "The resource has ended without a result and is not tried again."
    SUSPENDED = "Suspended", "The resource holds no pods because someone asked for that."
    RECONCILING = "Reconciling", "The resource is on its way; absent otherwise. Flux and kstatus look for it."
    STALLED = "Stalled", "It does not go on by itself, and why; absent otherwise. Flux and kstatus look for it."


class Reason(Word):
    """Why a condition has its status."""

    VALID = "Valid", "Nothing in the spec stands against launching."
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
    TRAINING_OPERATOR_MISSING = (
        "TrainingOperatorMissing",
        "The cluster does not know what training jobs are on the pool, PyTorchJobs or TrainJobs.",
    )

    WITHIN_MEMORY = "WithinMemory", "The estimate is within the memory there is."
    EXCEEDS_MEMORY = "ExceedsMemory", "The estimate is above the memory there is; the message says what would fit."
    SIZE_UNKNOWN = "SizeUnknown", "The model's size is not known before it is loaded; set model.parameters."

    WAITING = "Waiting", "An earlier condition is not True."
    JOB_CREATED = "JobCreated", "The training job exists."
    LAUNCH_REFUSED = "LaunchRefused", "The API server refused the training job; the message has its words."
    RETRYING = "Retrying", "An attempt failed; the next one starts after a delay."
    PODS_PENDING = "PodsPending", "Pods wait for a node or a volume."
    FEWER_WORKERS = "FewerWorkers", "There is no room for all workers; fewer go on (spec.elastic)."
    INTERRUPTED = "Interrupted", "A pod's node, or its room there, is being taken away; its checkpoint is being saved."
    RUNNING = "Running", "Pods are running."
    NOT_FINISHED = "NotFinished", "The resource is still on its way."

    COMPLETED = "Completed", "The result is complete."
    REUSED = "Reused", "An earlier result with the same inputs was taken."
    NOT_ASKED_FOR = "NotAskedFor", "The spec has no such stage."
    STAGE_RUNNING = "StageRunning", "A stage's resource is on its way; the message has its phase."
    STAGE_FAILED = "StageFailed", "A stage's resource has failed; the message has its words."
    ALIGNMENT_FAILED = "AlignmentFailed", "The alignment job has failed for good; see the condition Failed."
    METRIC_UNKNOWN = "MetricUnknown", "A suite has no metric of that name; the message has the nearest ones."
    SECRET_MISSING = "SecretMissing", "A Secret that the spec names does not exist, or lacks its key."
    METRIC_MISSING = "MetricMissing", "The gate names a metric that the evaluation does not have."
    METRIC_OUT_OF_BOUNDS = "MetricOutOfBounds", "A metric is beyond the gate's bound; the message has the numbers."
    PERPLEXITY_TOO_HIGH = "PerplexityTooHigh", "Quantization raised perplexity more than quantization allows."
    QUANTIZATION_FAILED = "QuantizationFailed", "The quantization job has failed; the message has its words."
    ROLLING_OUT = "RollingOut", "Replicas of the present spec are being started; older ones serve until they answer."
    ROLLOUT_STALLED = "RolloutStalled", "New replicas did not become ready in time; the message has a pod's words."
    NO_REPLICA_READY = "NoReplicaReady", "No replica answers."
    SERVING = "Serving", "Replicas answer."
    STOPPED = "Stopped", "spec.replicas is 0."
    CANARY_STARTING = "CanaryStarting", "The new model's canary is being started; the model before serves."
    CANARY_RUNNING = "CanaryRunning", "The canary gets its share of requests; status.canary has the numbers."
    CANARY_KEPT = "CanaryKept", "Both models serve until rollout.canaryPercent is 0 or 100: rollout.previous is keep."
    CANARY_PROMOTED = "CanaryPromoted", "The canary is taking over; it serves its share until that is done."
    CANARY_WORSE = "CanaryWorse", "The canary had more errors or was slower, and was taken back; see the message."
    SCALED_TO_ZERO = "ScaledToZero", "Nobody asks; the next request starts a replica, and is held until it answers."
    AUTOSCALED = "Autoscaled", "The number of replicas follows the load; the message has the numbers."
    AUTOSCALER_MISSING = "AutoscalerMissing", "The cluster lacks what spec.autoscaling.provider names."
    LOAD_UNKNOWN = "LoadUnknown", "Replicas do not tell their load; their number stays."
    MONITORING_MISSING = "MonitoringMissing", "The cluster does not know PodMonitors, which the operator is to make."
    NAME_TAKEN = "NameTaken", "A Deployment or Service of that name belongs to something else."
    NOT_SUSPENDED = "NotSuspended", "Nobody asked for suspension."
    SUSPENDED_BY_USER = "SuspendedByUser", "spec.suspend is true."
    SUSPENDED_BY_QUEUE = "SuspendedByQueue", "Kueue has not admitted the job, or has taken its quota back."

    LOSS_SPIKE = "LossSpike", "The loss spiked, and training went back to a checkpoint (an event; the run goes on)."
    TRACKING_FAILED = "TrackingFailed", "The experiment tracker takes no metrics (an event; the run goes on)."
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded", "backoffLimit attempts failed after the first."
    DEADLINE_EXCEEDED = "DeadlineExceeded", "activeDeadlineSeconds passed."
    NOT_FAILED = "NotFailed", "Nothing has failed for good."


FINAL = frozenset(
    {
        Reason.FEATURE_NOT_AVAILABLE,
        Reason.INVALID_SPEC,
        Reason.NAME_TOO_LONG,
        Reason.NODE_POOL_UNKNOWN,
        Reason.TOO_MANY_GPUS,
        Reason.FILE_URI_NOT_ALLOWED,
        Reason.HOST_NOT_ALLOWED,
        Reason.METRIC_UNKNOWN,
        Reason.EXCEEDS_MEMORY,
    }
)
"""Reasons that only another spec answers, or another configuration of the operator."""


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
    VOCABULARY_INVALID = "VocabularyInvalid", "New pieces cannot be read, clash with the tokenizer, or do not fit it."
    DIGEST_MISMATCH = "DigestMismatch", "The model, or a file, is not the one that the platform made there."
    CONFIG_INVALID = "ConfigInvalid", "Settings do not go together; the message names them."
    OUT_OF_MEMORY = "OutOfMemory", "A process ran out of memory; the message names the settings that need less."
    PUBLISH_FAILED = "PublishFailed", "The model is complete at its output; the hub or the registry refused it."
    DISK_FULL = "DiskFull", "The output volume is full."
    VOLUME_READ_ONLY = "VolumeReadOnly", "The output volume cannot be written."
    WORKER_LOST = "WorkerLost", "A peer process went away."
    LOSS_NOT_FINITE = "LossNotFinite", "The loss became NaN or infinite."
    LOSS_SPIKES = "LossSpikes", "The loss spiked more often than training.spikeRecovery goes back."
    REWARD_INVALID = "RewardInvalid", "A reward is NaN, the same for all answers, or fails; the message has a sample."
    KL_CEILING = "KlCeiling", "The policy went farther from its start than guardrails.klCeiling."
    LENGTH_COLLAPSED = "LengthCollapsed", "Answers became shorter than guardrails.minLengthRatio allows."
    DIVERSITY_COLLAPSED = "DiversityCollapsed", "Answers became more alike than guardrails.minDiversityRatio allows."
    REWARD_OVER_OPTIMIZED = "RewardOverOptimized", "The reward rose while the held-out score fell."
    ENDPOINT_UNAVAILABLE = "EndpointUnavailable", "An endpoint, or a judge, does not answer or refuses to."
    TASK_INVALID = "TaskInvalid", "A task of lm-evaluation-harness is unknown, or would have to be downloaded."
    ENTRY_POINT_FAILED = "EntryPointFailed", "A suite's Python function is missing, fails, or returns no numbers."
    CRASHED = "Crashed", "The process ended by an unexpected error; its log has the trace."
    KILLED = "Killed", "The process was killed from outside."
    INTERRUPTED = "Interrupted", "A node, or the room on it, was taken away; spec.backoffLimit does not count that."
    EVICTED = "Evicted", "The pod was evicted from its node."
    IMAGE_MISSING = "ImageMissing", "The container image cannot be pulled."
    RESULT_LOST = "ResultLost", "The process ended well, but its result could not be read."
