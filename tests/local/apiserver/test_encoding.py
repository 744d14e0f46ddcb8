"""Bodies: what is read, and what is refused before it can do harm."""

import pytest

from alidade_local.apiserver.encoding import decode_json, decode_yaml
from alidade_local.apiserver.errors import ApiError


def laughs(levels: int) -> bytes:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 200_000, "nested more than 100 levels deep"),
        (b"- " * 101 + b"x", "nested more than 100 levels deep"),
        (laughs(40), "more than 1000000 values after its aliases"),
        (b"a: &a\n  b: *a\n", "an alias refers to itself"),
        (b"1: 2\n", "keys must be text"),
        (b"a: !!python/object:os.system x\n", "error converting YAML to JSON"),
        (b"a: [", "error converting YAML to JSON"),
        (b"{" * 200_000, "not valid JSON"),
    ],
)
def test_harmful_yaml_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(ApiError) as refused:
        decode_yaml(body, 100)
    assert refused.value.code == 400
    assert words in refused.value.message


def test_aliases_are_written_out_and_dates_stay_text() -> None:
    body = b"base: &base {x: 1}\ncopy: *base\nday: 2020-01-01\nmerged: {<<: *base, y: 2}\n"
    assert decode_yaml(body, 100) == {
        "base": {"x": 1},
        "copy": {"x": 1},
        "day": "2020-01-01",
        "merged": {"x": 1, "y": 2},
    }


def test_the_deepest_allowed_object_is_read() -> None:
    assert decode_json(b'{"a":' * 100 + b"1" + b"}" * 100, 100)["a"]
    with pytest.raises(ApiError, match="nested more than 100 levels"):
        decode_json(b'{"a":' * 101 + b"1" + b"}" * 101, 100)
