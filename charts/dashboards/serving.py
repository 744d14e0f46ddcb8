"""The dashboard of served models, whatever their engine: it reads the vocabulary of the recording rules."""

from alidade_crds.metric_names import GatewayMetric, ServeMetric
from charts.dashboards.panels import Json, Query, Row, Variable, curve, dashboard, number

_ONE = 'namespace=~"$namespace", name=~"$name"'
_WHO = "{{namespace}}/{{name}} {{component}}"
_RATE = "[$__rate_interval]"


def _recorded(name: str) -> str:
    return f"modelserve:{name}{{{_ONE}}}"


def serving() -> Json:
    """The dashboard."""
    errors = _recorded("errors:ratio_rate5m")
    requests = _recorded("requests:rate5m")
    accepted = f"sum by (namespace, name, component) (rate({ServeMetric.ACCEPTED_TOKENS}{{{_ONE}}}{_RATE}))"
    drafted = f"sum by (namespace, name, component) (rate({ServeMetric.DRAFTED_TOKENS}{{{_ONE}}}{_RATE}))"
    reused = f"sum by (namespace, name, component) (rate({ServeMetric.REUSED_TOKENS}{{{_ONE}}}{_RATE}))"
    answered = f"rate({GatewayMetric.REQUESTS}{{{_ONE}}}{_RATE})"
    first_bytes = f"rate({GatewayMetric.TIME_TO_FIRST_BYTE}_bucket{{{_ONE}}}{_RATE})"
    held = f"rate({GatewayMetric.HELD}_bucket{{{_ONE}}}{_RATE})"
    rows = [
        Row(
            "Now",
            (
                number("Requests per second", f"sum({requests}) or vector(0)", unit="reqps"),
                number("Errors", f"max({errors}) or vector(0)", unit="percentunit", description="Of the worst one."),
                number("First token (95 %)", f"max({_recorded('first_token_seconds:p95')})", unit="s"),
                number("Tokens per second", f"sum({_recorded('generated_tokens:rate5m')}) or vector(0)"),
                number("Waiting", f"sum({_recorded('requests_waiting:sum')}) or vector(0)"),
                number("Warm replicas", f"sum({ServeMetric.READY}{{{_ONE}}}) or vector(0)", description="Embedded."),
            ),
        ),
        Row(
            "Requests",
            (
                curve("By outcome", Query(f"sum by (outcome) ({requests})", "{{outcome}}"), unit="reqps"),
                curve("Errors", Query(errors, _WHO), unit="percentunit"),
                curve("Duration (95 %)", Query(_recorded("request_seconds:p95"), _WHO), unit="s"),
                curve("First token (95 %)", Query(_recorded("first_token_seconds:p95"), _WHO), unit="s"),
                curve("Time of a token (median)", Query(_recorded("output_token_seconds:p50"), _WHO), unit="s"),
                curve(
                    "Running and waiting",
                    Query(_recorded("requests_running:sum"), _WHO + " running"),
                    Query(_recorded("requests_waiting:sum"), _WHO + " waiting"),
                ),
            ),
        ),
        Row(
            "Tokens",
            (
                curve("Generated", Query(_recorded("generated_tokens:rate5m"), _WHO), description="Per second."),
                curve("Of prompts", Query(_recorded("prompt_tokens:rate5m"), _WHO), description="Per second."),
                curve(
                    "Spared",
                    Query(reused, _WHO + " reused from a slot"),
                    Query(f"{accepted} / {drafted}", _WHO + " share of drafted tokens that were right"),
                    description="By the embedded server.",
                ),
            ),
        ),
        Row(
            "Canary against the model before, as the gateway sees them",
            (
                curve("Requests", Query(f"sum by (name, backend) ({answered})", "{{name}} {{backend}}"), unit="reqps"),
                curve("Errors", Query(_gateway_errors(), "{{name}} {{backend}}"), unit="percentunit"),
                curve(
                    "First byte (95 %)",
                    Query(
                        f"histogram_quantile(0.95, sum by (name, backend, le) ({first_bytes}))", "{{name}} {{backend}}"
                    ),
                    unit="s",
                ),
                curve(
                    "Tries in vain",
                    Query(
                        f"sum by (name, backend, reason) (rate({GatewayMetric.RETRIES}{{{_ONE}}}{_RATE}))",
                        "{{name}} {{backend}} {{reason}}",
                    ),
                    unit="reqps",
                ),
                curve(
                    "Held (95 %)",
                    Query(
                        f"histogram_quantile(0.95, sum by (name, le) ({held}))",
                        "{{name}}",
                    ),
                    unit="s",
                    description="Requests that came while no replica answered.",
                ),
                curve(
                    "Votes in the arena",
                    Query(f"sum by (name) (increase({GatewayMetric.VOTES}{{{_ONE}}}[1h]))", "{{name}}"),
                    description="In the last hour.",
                ),
            ),
        ),
    ]
    variables = [
        Variable("namespace", "modelserve:requests_running:sum", "namespace"),
        Variable("name", 'modelserve:requests_running:sum{namespace=~"$namespace"}', "name"),
    ]
    return dashboard("alidade-serving", "Alidade / Serving", "Requests, times, tokens and canaries.", rows, variables)


def _gateway_errors() -> str:
    failed = f'sum by (name, backend) (rate({GatewayMetric.REQUESTS}{{{_ONE}, code=~"5.."}}{_RATE}))'
    every = f'sum by (name, backend) (rate({GatewayMetric.REQUESTS}{{{_ONE}, code=~"2..|5.."}}{_RATE}))'
    return f"{failed} / {every}"
