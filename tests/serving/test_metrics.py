"""Every promised metric is there, under its name, and nothing else is."""

import re

from alidade_crds.metric_names import ServeMetric, TgiMetric
from tests.serving.running import Server


def test_what_is_exported_is_what_is_promised(server: Server) -> None:
    server.generate("hello", max_new_tokens=2)
    server.post("/generate", {"inputs": ""})
    text = server.get("/metrics")[1]
    names = {re.sub(r"_(bucket|count|sum|created)$", "", line.split("{")[0].split(" ")[0]) for line in lines(text)}
    promised = {re.sub(r"_count$", "", name) for name in [*TgiMetric, *ServeMetric]}
    optional = {TgiMetric.REQUEST_FAILURE}  # there once something has failed
    created = {name.removesuffix("_total") for name in promised}
    assert promised - optional <= names
    assert names - promised - created == set()


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_tokens_and_times_are_counted(server: Server) -> None:
    names = {
        "modelserve_generated_tokens_total": 5,
        "modelserve_time_to_first_token_seconds_count": 1,
        "modelserve_time_per_output_token_seconds_count": 1,
        "tgi_request_count": 1,
        "tgi_request_success": 1,
        "tgi_request_generated_tokens_sum": 5,
        "tgi_request_max_new_tokens_sum": 5,
    }
    before = {name: server.metric(name) for name in names}
    server.generate("hello", max_new_tokens=5)
    assert {name: server.metric(name) - before[name] for name in names} == names


def test_an_answer_of_one_token_has_no_time_between_tokens(server: Server) -> None:
    before = server.metric("modelserve_time_per_output_token_seconds_count")
    server.generate("hello", max_new_tokens=1)
    assert server.metric("modelserve_time_per_output_token_seconds_count") == before
