"""What a gateway tells of itself: the operator's document, the metrics, and the log."""

import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from alidade_crds.contract import GatewayDocument
from alidade_crds.metric_names import GatewayMetric
from alidade_gateway.counts import Counts, percentile
from tests.gateway.running import Gateway, Upstream, ask, wait_for


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 95, None),
        ([3.0], 50, 3.0),
        ([3.0], 95, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([float(number) for number in range(1, 21)], 95, 19.0),
        ([float(number) for number in range(1, 1001)], 95, 950.0),
    ],
)
def test_a_percentile_by_hand(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_reaches_its_share(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@given(st.lists(st.floats(0, 1e6), min_size=1).filter(lambda values: len(values) % 2))
def test_the_median_of_an_odd_number_is_the_middle_one(values: list[float]) -> None:
    assert percentile(values, 50) == statistics.median(values)


def test_percentiles_follow_the_newest_thousand() -> None:
    counts = Counts()
    assert counts.document().to_dict() == {"requests": 0, "errors": 0}
    for _ in range(500):
        counts.answered(first_byte_s=9.0, whole_s=90.0)
    for _ in range(999):
        counts.answered(first_byte_s=1.0, whole_s=2.0)
    document = counts.document()
    assert (document.first_byte_seconds_p50, document.seconds_p95) == (1.0, 2.0)
    assert percentile(counts.first_bytes, 100) == 9.0
    counts.answered(first_byte_s=1.0, whole_s=2.0)
    assert percentile(counts.first_bytes, 100) == 1.0


def test_the_document_tells_both_sides_apart(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], stable: Upstream
) -> None:
    """Refusals are the client's, 424 and what is above 500 the side's; what generates nothing is not compared."""
    before = datetime.now(UTC)
    canary = replica("canary")
    gateway = start(stable.url, canary=canary.url, canary_percent=100)
    text = gateway.get("/internal/status")[1]
    assert set(json.loads(text)) == {"startedAt", "waiting", "running", "backends", "votes"}
    for path in ("/echo", "/status/422", "/status/404", "/status/424", "/status/500", "/stream?chunks=4&interval=0.1"):
        ask(gateway.url, path)
    ask(gateway.url, "/status/500", method="GET", body=None)
    document = GatewayDocument.model_validate_json(gateway.get("/internal/status")[1])
    assert before < document.started_at < document.last_request_at < datetime.now(UTC)  # type: ignore[operator]
    assert (document.waiting, document.running, document.votes) == (0, 0, 0)
    assert document.backends.stable.requests == 0
    told = document.backends.canary
    assert told is not None
    assert (told.requests, told.errors) == (6, 2)
    assert told.first_byte_seconds_p95 is not None
    assert told.seconds_p95 is not None
    assert told.first_byte_seconds_p95 < 0.3 <= told.seconds_p95 < 5


def test_without_a_canary_there_is_none_in_the_document(gateway: Gateway) -> None:
    assert set(gateway.status()["backends"]) == {"stable"}


def test_metrics_are_what_is_promised_and_can_be_parsed(gateway: Gateway, stable: Upstream) -> None:
    ask(gateway.url, "/unready-once/metrics")
    ask(gateway.url, "/status/422")
    families = {family.name: family for family in text_string_to_metric_families(gateway.get("/metrics")[1])}
    made = {name.removesuffix("_created") for name in families if name.endswith("_created")}
    assert set(families) - {f"{name}_created" for name in made} == {
        name.removesuffix("_total") for name in GatewayMetric
    }
    for name in GatewayMetric:
        family = families[name.removesuffix("_total")]
        assert name.meaning.lower().startswith(family.type)
        assert family.documentation == name.meaning
        labels = name.meaning.partition("(")[2].partition(")")[0].split(", ")
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(labels)
    codes = {
        (sample.labels["backend"], sample.labels["code"])
        for sample in families[GatewayMetric.REQUESTS.removesuffix("_total")].samples
    }
    assert codes == {("stable", "200"), ("stable", "422")}


def test_what_asks_after_the_gateway_is_not_counted(gateway: Gateway) -> None:
    before = gateway.status()
    assert [gateway.get(path)[0] for path in ("/health", "/readyz", "/livez", "/metrics")] == [200] * 4
    assert gateway.status() == before


def test_the_log_names_no_prompt(gateway: Gateway) -> None:
    ask(gateway.url, "/echo?text=confided", b'{"inputs": "confided"}', headers={"X-Request-Id": "logged-1"})
    wait_for(lambda: any(line["request"] == "logged-1" for line in gateway.lines()))
    (line,) = (line for line in gateway.lines() if line["request"] == "logged-1")
    assert line.items() >= {"method": "POST", "path": "/echo", "status": 200, "backend": "stable", "tries": 1}.items()
    assert line["firstByteSeconds"] <= line["seconds"]
    assert not any("confided" in text for text in gateway.log)
