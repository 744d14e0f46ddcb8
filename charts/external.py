"""Metrics that other programs export and that rules and dashboards read."""

from alidade_crds.words import Word


class DcgmMetric(Word):
    """NVIDIA's DCGM exporter, with the labels of the pod that holds the GPU."""

    UTILIZATION = "DCGM_FI_DEV_GPU_UTIL", "Gauge: share of time that the GPU computed, in percent."
    MEMORY_USED = "DCGM_FI_DEV_FB_USED", "Gauge: GPU memory in use, in MiB."


class VllmMetric(Word):
    """vLLM 0.32, under its own names."""

    RUNNING = "vllm:num_requests_running", "Gauge: requests that generate."
    WAITING = "vllm:num_requests_waiting", "Gauge: requests that wait."
    REQUESTS = "vllm:request_success_total", "Counter (finished_reason): requests that ended."
    PROMPT_TOKENS = "vllm:prompt_tokens_total", "Counter: tokens of prompts."
    GENERATED_TOKENS = "vllm:generation_tokens_total", "Counter: tokens of answers."
    FIRST_TOKEN = "vllm:time_to_first_token_seconds", "Histogram: time to the first token, in seconds."
    TOKEN = "vllm:inter_token_latency_seconds", "Histogram: time between two tokens, in seconds."
    DURATION = "vllm:e2e_request_latency_seconds", "Histogram: from arrival to the last token, in seconds."
