"""Names of the Prometheus metrics that dashboards, alerts and rules may rely on."""

from alidade_crds.words import Word


class OperatorMetric(Word):
    """What the operator exports at /metrics; type, labels and unit are said with each."""

    RECONCILES = (
        "alidade_operator_reconciles_total",
        "Counter (kind, outcome): resources looked at; outcome is changed, unchanged, outdated, gone or error.",
    )
    RECONCILE_DURATION = (
        "alidade_operator_reconcile_duration_seconds",
        "Histogram (kind): time from taking a resource off the queue to the end of its writes, in seconds.",
    )
    QUEUE_DEPTH = "alidade_operator_queue_depth", "Gauge: resources that wait for a worker."
    QUEUE_WAIT = "alidade_operator_queue_wait_seconds", "Histogram: time a resource waited for a worker, in seconds."
    API_CALLS = "alidade_operator_api_calls_total", "Counter (verb, resource, code): calls of the Kubernetes API."
    RESOURCES = "alidade_operator_resources", "Gauge (kind, phase): resources there are."
    WATCH_EVENTS = "alidade_operator_watch_events_total", "Counter (resource): changes the API server told of."
    RESYNC_REPAIRS = (
        "alidade_operator_resync_repairs_total",
        "Counter (resource): objects that the watch had lost and a full listing brought right.",
    )
    PROGRESS_READS = (
        "alidade_operator_progress_reads_total",
        "Counter (outcome): reads of a job's progress; outcome is read, unreachable or malformed.",
    )
    SERVING_READS = (
        "alidade_operator_serving_reads_total",
        "Counter (outcome): reads of gateways' and replicas' counts; outcome is read, unreachable or malformed.",
    )
    ADMISSIONS = (
        "alidade_operator_admissions_total",
        "Counter (kind, outcome): reviews of resources that are applied; outcome is allowed, warned, denied or error.",
    )
    ADMISSION_DURATION = (
        "alidade_operator_admission_duration_seconds",
        "Histogram (kind): time from a review's arrival to its answer, in seconds.",
    )
    MISSING_KINDS = "alidade_operator_missing_kinds", "Gauge (kind): 1 for each kind that the cluster does not know."
    LEADER = "alidade_operator_leader", "Gauge: 1 while this replica holds the lease, else 0."


class JobMetric(Word):
    """Gauges (namespace, name, kind) mirrored from the progress of running jobs; gone when a job ends."""

    STEP = "alidade_job_step", "Optimizer steps done."
    TOTAL_STEPS = "alidade_job_total_steps", "Optimizer steps in all."
    EPOCH = "alidade_job_epoch", "Passes over the dataset done."
    LOSS = "alidade_job_loss", "Mean training loss since the last report, in nats per token."
    EVAL_LOSS = "alidade_job_eval_loss", "Newest loss on the held-out data, in nats per token."
    LEARNING_RATE = "alidade_job_learning_rate", "Learning rate of the last step."
    TOKENS_PER_SECOND = "alidade_job_tokens_per_second", "Tokens trained on per second, over all processes."
    ATTEMPTS = "alidade_job_attempts", "Times the job was launched."
    ITERATION = "alidade_job_iteration", "Iterations of the present step of an AlignmentRun done."
    TOTAL_ITERATIONS = "alidade_job_total_iterations", "Iterations of the present step of an AlignmentRun in all."


class RunMetric(Word):
    """Gauges of AlignmentRuns: newest metrics of each step, such as reward, kl and acceptance; gone at the end."""

    ALIGNMENT = "alidade_run_alignment", "Gauge (namespace, name, step, metric): newest value of a step's metric."


class ResourceMetric(Word):
    """Gauges of what the resources' statuses say; every replica of the operator tells the same: take the maximum.

    GPU hours and costs are those of resources that no other one has made: an AlignmentRun's are those of its stages.
    """

    PROBLEM = (
        "alidade_resource_problem",
        "Gauge (namespace, name, kind, condition, reason): 1 while a condition says why the resource is in trouble: it "
        "has failed, waits for something to be mended, was stopped by a guard rail or by its gate.",
    )
    QUEUED = (
        "alidade_resource_queued_seconds",
        "Gauge (namespace, name, kind): how long the resource has been held back by its queue, in seconds.",
    )
    GPU_HOURS = "alidade_resource_gpu_hours", "Gauge (namespace, name, kind): GPUs times hours held so far."
    COST = "alidade_resource_cost", "Gauge (namespace, name, kind, currency): those at the node pool's price."


class TrainerMetric(Word):
    """What rank 0 of a training job exports at /metrics."""

    STEP = "alidade_trainer_step", "Gauge: optimizer steps done."
    TOTAL_STEPS = "alidade_trainer_total_steps", "Gauge: optimizer steps in all."
    EPOCH = "alidade_trainer_epoch", "Gauge: passes over the dataset done."
    LOSS = "alidade_trainer_loss", "Gauge: mean training loss since the last report, in nats per token."
    DATASET_LOSS = (
        "alidade_trainer_dataset_loss",
        "Gauge (dataset): mean training loss of each dataset, where several are mixed, in nats per token.",
    )
    EVAL_LOSS = "alidade_trainer_eval_loss", "Gauge: newest loss on the held-out data, in nats per token."
    DATASET_EVAL_LOSS = (
        "alidade_trainer_dataset_eval_loss",
        "Gauge (dataset): newest loss on what is held out of each dataset, where several are, in nats per token.",
    )
    LEARNING_RATE = "alidade_trainer_learning_rate", "Gauge: learning rate of the last step."
    GRAD_NORM = "alidade_trainer_grad_norm", "Gauge: norm of the gradient before clipping."
    NOISE_SCALE = (
        "alidade_trainer_gradient_noise_scale",
        "Gauge: sequences beyond which a larger batch teaches little more (McCandlish et al. 2018, equation 2.9).",
    )
    TOKENS = "alidade_trainer_tokens_total", "Counter: tokens trained on, over all processes."
    TOKENS_PER_SECOND = "alidade_trainer_tokens_per_second", "Gauge: tokens trained on per second, over all processes."
    STEP_DURATION = "alidade_trainer_step_duration_seconds", "Histogram: time of an optimizer step, in seconds."
    MEMORY = "alidade_trainer_memory_bytes", "Gauge (kind): memory of rank 0; kind is resident or gpu_peak."
    MFU = "alidade_trainer_mfu_ratio", "Gauge: share of the GPU's peak arithmetic that training uses."
    CHECKPOINT_STEP = "alidade_trainer_checkpoint_step", "Gauge: step of the newest complete checkpoint."
    CHECKPOINT_TIME = "alidade_trainer_checkpoint_timestamp_seconds", "Gauge: when it was completed, in Unix time."
    ALIGNMENT = (
        "alidade_trainer_alignment",
        "Gauge (step, metric): newest reward, kl, acceptance and other metrics of an alignment step's iterations.",
    )
    ITERATION = "alidade_trainer_alignment_iteration", "Gauge (step): iterations of the present alignment step done."


class EvaluationMetric(Word):
    """What the first process of an evaluation job exports at /metrics."""

    SAMPLES = "alidade_evaluation_samples", "Gauge: samples measured, over all processes and models."
    TOTAL_SAMPLES = "alidade_evaluation_total_samples", "Gauge: samples in all."
    FAILURES = "alidade_evaluation_failures_total", "Counter (model): samples without an answer."


class ResultMetric(Word):
    """Gauges (namespace, name, suite, metric, model) of finished Evaluations; gone with the resource."""

    VALUE = "alidade_evaluation_result", "The measured value."
    LOW = "alidade_evaluation_result_low", "Lower end of its 95 % interval."
    HIGH = "alidade_evaluation_result_high", "Upper end of its 95 % interval."


class TgiMetric(Word):
    """What text-generation-inference exports under the same names, with the same meaning; times in seconds."""

    REQUEST_COUNT = "tgi_request_count", "Counter: generations that were asked for."
    REQUEST_SUCCESS = "tgi_request_success", "Counter: generations that ended well."
    REQUEST_FAILURE = "tgi_request_failure", "Counter (err): generations that failed, by error_type."
    REQUEST_DURATION = "tgi_request_duration", "Histogram: from arrival to the last token."
    QUEUE_DURATION = "tgi_request_queue_duration", "Histogram: from arrival to a free slot."
    INFERENCE_DURATION = "tgi_request_inference_duration", "Histogram: from a free slot to the last token."
    VALIDATION_DURATION = "tgi_request_validation_duration", "Histogram: time to check a request and tokenize it."
    MEAN_TIME_PER_TOKEN = (
        "tgi_request_mean_time_per_token_duration",
        "Histogram: inference duration per generated token.",
    )
    INPUT_LENGTH = "tgi_request_input_length", "Histogram: tokens of prompts."
    GENERATED_TOKENS = "tgi_request_generated_tokens", "Histogram: tokens of answers."
    MAX_NEW_TOKENS = "tgi_request_max_new_tokens", "Histogram: tokens that requests allowed."
    QUEUE_SIZE = "tgi_queue_size", "Gauge: requests that wait for a slot."
    BATCH_SIZE = "tgi_batch_current_size", "Gauge: requests that generate."


class ServeMetric(Word):
    """What every engine behind a ModelServe is mapped to; label `model` is the served name."""

    TIME_TO_FIRST_TOKEN = (
        "modelserve_time_to_first_token_seconds",
        "Histogram (model): from arrival to the first token, waiting included.",
    )
    TIME_PER_OUTPUT_TOKEN = (
        "modelserve_time_per_output_token_seconds",
        "Histogram (model): mean time between the tokens of an answer after its first; answers of two tokens or more.",
    )
    REQUESTS = (
        "modelserve_requests_total",
        "Counter (model, outcome): requests by outcome: ok, cancelled or error_type.",
    )
    REQUESTS_RUNNING = "modelserve_requests_running", "Gauge (model): requests that generate."
    REQUESTS_WAITING = "modelserve_requests_waiting", "Gauge (model): requests that wait for a slot."
    PROMPT_TOKENS = "modelserve_prompt_tokens_total", "Counter (model): tokens of prompts."
    REUSED_TOKENS = (
        "modelserve_prompt_tokens_reused_total",
        "Counter (model): tokens of prompts whose keys and values were still in a slot.",
    )
    GENERATED_TOKENS = "modelserve_generated_tokens_total", "Counter (model): tokens of answers, as they are generated."
    DRAFTED_TOKENS = "modelserve_draft_tokens_total", "Counter (model): tokens that speculative decoding proposed."
    ACCEPTED_TOKENS = "modelserve_draft_tokens_accepted_total", "Counter (model): proposed tokens that were right."
    READY = "modelserve_ready", "Gauge (model): 1 while the model is warm and not about to end, else 0."


class GatewayMetric(Word):
    """What a gateway exports at /metrics; label `model` is the served name, `backend` is stable or canary."""

    REQUESTS = (
        "modelserve_gateway_requests_total",
        "Counter (model, backend, code): requests by who answered and the answer's code; backend is gateway where it "
        "answered itself, code 499 where the client went away, 502 where an answer broke.",
    )
    DURATION = (
        "modelserve_gateway_request_duration_seconds",
        "Histogram (model, backend): from arrival to the last byte.",
    )
    TIME_TO_FIRST_BYTE = (
        "modelserve_gateway_time_to_first_byte_seconds",
        "Histogram (model, backend): from arrival to the answer's first byte, holding included.",
    )
    HELD = (
        "modelserve_gateway_held_seconds",
        "Histogram (model): how long requests were held that came while no replica answered.",
    )
    RETRIES = (
        "modelserve_gateway_retries_total",
        "Counter (model, backend, reason): tries that gave no answer and were followed by another or a refusal; reason "
        "is unreachable, unready or broken.",
    )
    WAITING = "modelserve_gateway_waiting", "Gauge (model): requests that are held."
    RUNNING = "modelserve_gateway_running", "Gauge (model): requests that are being answered."
    VOTES = "modelserve_gateway_votes_total", "Counter (model): votes cast in the arena."
