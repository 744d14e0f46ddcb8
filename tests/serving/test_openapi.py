"""The document by which others learn what the server answers."""

from __future__ import annotations

from typing import Any, cast

import jsonschema

from alidade_serving.openai import OpenAiApi
from alidade_serving.openapi import openapi
from alidade_serving.service import Service
from alidade_serving.tgi import TgiApi

NOBODY = cast(Service, None)
"""Routes ask for a service when they are called."""


def test_every_route_of_the_model_is_described_with_the_body_that_it_reads() -> None:
    document = openapi()
    routes = {(route.path, route.method.lower()) for api in (TgiApi, OpenAiApi) for route in api(NOBODY).routes()}
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert routes <= described
    assert {path for path, _ in described - routes} == {"/health", "/readyz", "/livez", "/metrics"}
    for path, method in routes:
        assert ("requestBody" in document["paths"][path][method]) == (method == "post")


def test_a_body_is_as_its_schema_says() -> None:
    document = openapi()

    def errors(path: str, body: Any) -> list[str]:
        reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        schema = reference | {"components": document["components"]}
        return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(body)]

    assert errors("/v1/chat/completions", {"model": "a", "messages": [{"role": "user", "content": "Hi"}]}) == []
    assert errors("/generate", {"inputs": "Hi", "parameters": {"top_p": 2}}) != []
