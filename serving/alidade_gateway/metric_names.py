"""Names of the Prometheus metrics of a gateway, which dashboards, alerts and rules may rely on."""

from alidade_crds.words import Word


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
