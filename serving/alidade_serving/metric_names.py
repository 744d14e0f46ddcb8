"""Names of the Prometheus metrics of a server, which dashboards, alerts and rules may rely on."""

from alidade_crds.words import Word


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
