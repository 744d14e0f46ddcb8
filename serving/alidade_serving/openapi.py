"""What the server answers, as an OpenAPI document, made from the types that it reads."""

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from alidade_serving.documents import ChatRequest, CompletionRequest, TgiRequest, TokenizeRequest

PATH = "/openapi.json"

_BODIES: dict[str, tuple[type[BaseModel], str]] = {
    "/": (TgiRequest, "Answers a prompt, in a list; streams where `stream` is true."),
    "/generate": (TgiRequest, "Answers a prompt."),
    "/generate_stream": (TgiRequest, "Answers a prompt, token by token."),
    "/tokenize": (TokenizeRequest, "Splits a text into tokens."),
    "/v1/completions": (CompletionRequest, "Continues a text."),
    "/v1/chat/completions": (ChatRequest, "Answers a conversation."),
}
_READ = {
    "/health": "Whether the model is loaded.",
    "/readyz": "Whether the model is loaded.",
    "/livez": "Whether tokens come while requests generate.",
    "/metrics": "Measurements for Prometheus.",
    "/info": "The model and its limits.",
    "/v1/models": "The model, and the adapters of it.",
    "/v1/models/{name}": "One of them.",
}
_ANSWERS = {
    "200": "Done.",
    "400": "The body is not JSON.",
    "401": "A key is needed, and this is none.",
    "404": "There is no such path or model.",
    "408": "The body did not arrive in time.",
    "413": "The body is too long.",
    "422": "A field is unknown, or its value is not served; the message names it and the limit.",
    "424": "The engine could not generate.",
    "429": "Too many requests wait; Retry-After says when to come again.",
    "500": "The server failed; its log says why.",
    "503": "The model is being loaded, or the server is about to end.",
}
_ANYWHERE = ("200", "401", "404", "503")
_SCHEMA = "#/components/schemas/{model}"


def openapi() -> dict[str, Any]:
    """The document, in OpenAPI 3.1."""
    kinds = [kind for kind, _ in _BODIES.values()]
    references, definitions = models_json_schema([(kind, "validation") for kind in kinds], ref_template=_SCHEMA)
    paths: dict[str, Any] = {path: {"get": _operation(path, told, *_ANYWHERE)} for path, told in _READ.items()}
    for path, (kind, told) in _BODIES.items():
        body = {"required": True, "content": {"application/json": {"schema": references[kind, "validation"]}}}
        paths[path] = {"post": _operation(path, told, *_ANSWERS) | {"requestBody": body}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Alidade inference server", "version": version("alidade-serving")},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _operation(path: str, told: str, *statuses: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": told,
        "responses": {status: {"description": _ANSWERS[status]} for status in statuses},
    }
    if "{name}" in path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation
