"""Any bytes are answered, never with a failure of the server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alidade_serving.documents import ChatRequest, CompletionRequest, TgiRequest, TokenizeRequest, read_document
from alidade_serving.front.bodies import parse_json
from alidade_serving.front.refusals import Refusal
from tests.serving.running import Server

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
KINDS = (TgiRequest, TokenizeRequest, CompletionRequest, ChatRequest)


def fields(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Documents with fields of the right name and any value."""
    return st.dictionaries(st.sampled_from(sorted(kind.model_fields)), JSON, max_size=6)


def refused(call: Callable[[], object]) -> Refusal | None:
    """How a call was refused; any other exception is the test's failure."""
    try:
        call()
    except Refusal as refusal:
        return refusal
    return None


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    outcome = refused(lambda: parse_json(body))
    assert outcome is None or outcome.status == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff\xfe", "is not UTF-8: byte 0"),
        (b"", "is not JSON"),
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 500_000, "nested too deeply"),
        (b"[1]", "is a JSON list; send an object."),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_the_reason(body: bytes, message: str) -> None:
    with pytest.raises(Refusal, match=message) as raised:
        parse_json(body)
    assert raised.value.status == 400


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_any_document_is_read_or_refused_with_a_field(kind: Any, data: st.DataObject) -> None:
    document = data.draw(fields(kind))
    outcome = refused(lambda: read_document(kind, document))
    assert outcome is None or (outcome.status == 422 and outcome.field is not None)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/generate", TgiRequest), ("/tokenize", TokenizeRequest), ("/v1/completions", CompletionRequest)],
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_body_over_http_is_answered(server: Server, path: str, kind: Any, data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=50) | fields(kind).map(lambda document: json.dumps(document).encode()))
    status, answer = server.post_raw(path, body)
    assert status in (200, 400, 404, 422)
    assert json.loads(answer)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1, max_size=40), stop=st.lists(st.text(min_size=1, max_size=3), max_size=4))
def test_any_text_is_answered(server: Server, text: str, stop: list[str]) -> None:
    """What Hypothesis draws as text can be written in UTF-8."""
    status, answer = server.generate(text, max_new_tokens=4, stop=stop)
    assert status == 200 or "tokens" in answer["error"]
