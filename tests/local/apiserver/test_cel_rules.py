"""CEL rules: what they see, when they are asked, what they say."""

from typing import Any

import pytest

from alidade_local.apiserver import cel_rules
from alidade_local.apiserver.errors import FieldError
from alidade_local.apiserver.schema import Schema

Json = dict[str, Any]


def schema(rule: Json | str, properties: Json | None = None, **more: Any) -> Schema:
    """A root schema whose spec has one rule."""
    rules = [{"rule": rule} if isinstance(rule, str) else rule]
    spec = {"type": "object", "properties": properties or {}, "x-kubernetes-validations": rules, **more}
    return Schema({"type": "object", "properties": {"spec": spec}})


def check(rule: Json | str, spec: Json, old: Json | None = None, properties: Json | None = None) -> list[FieldError]:
    wrap = {"metadata": {"name": "x"}}
    before = None if old is None else {**wrap, "spec": old}
    return cel_rules.check({**wrap, "spec": spec}, schema(rule, properties), before)


INT: Json = {"type": "integer"}
TEXT: Json = {"type": "string"}
TEXTS: Json = {"type": "array", "items": TEXT}


@pytest.mark.parametrize(
    ("rule", "spec", "properties", "holds"),
    [
        ("self.a <= self.b", {"a": 1, "b": 2}, {"a": INT, "b": INT}, True),
        ("self.a <= self.b", {"a": 3, "b": 2}, {"a": INT, "b": INT}, False),
        ("has(self.a) != has(self.b)", {"a": 1}, {"a": INT, "b": INT}, True),
        ("[has(self.a), has(self.b)].exists_one(x, x)", {"a": 1, "b": 1}, {"a": INT, "b": INT}, False),
        ("has(self.a)", {"a": None}, {"a": {**INT, "nullable": True}}, False),
        ("self.l.all(x, x.startsWith('a'))", {"l": ["ab", "ac"]}, {"l": TEXTS}, True),
        ("self.l.all(x, x.startsWith('a'))", {"l": ["ab", "b"]}, {"l": TEXTS}, False),
        ("self.l.map(x, x.size()).sum() == 3", {"l": ["a", "bc"]}, {"l": TEXTS}, True),
        ("self.l.isSorted()", {"l": ["b", "a"]}, {"l": TEXTS}, False),
        ("self.u.matches('^(hf|s3)://.+')", {"u": "hf://x"}, {"u": TEXT}, True),
        ("isURL(self.u) && url(self.u).getHost() == 'x.y:8'", {"u": "https://x.y:8/z"}, {"u": TEXT}, True),
        ("quantity(self.u).isGreaterThan(quantity('1Gi'))", {"u": "2000Mi"}, {"u": TEXT}, True),
        ("self.u.find('[0-9]+') == '42'", {"u": "a42b"}, {"u": TEXT}, True),
        ("self.u.split('/')[1] == 'b'", {"u": "a/b"}, {"u": TEXT}, True),
        ("'%s is %d'.format([self.u, 3]) == 'a is 3'", {"u": "a"}, {"u": TEXT}, True),
        ("self.n == 2.0", {"n": 2}, {"n": {"type": "number"}}, True),
        ("type(self.n) == double", {"n": 2}, {"n": {"type": "number"}}, True),
        (
            "type(self.e) == int ? self.e > 0 : self.e == 'auto'",
            {"e": "auto"},
            {"e": {"x-kubernetes-int-or-string": True}},
            True,
        ),
        (
            "self.__namespace__ == 'x' && self.a__dash__b == 1",
            {"namespace": "x", "a-b": 1},
            {"namespace": TEXT, "a-b": INT},
            True,
        ),
        (
            "self.t > timestamp('2020-01-01T00:00:00Z')",
            {"t": "2021-01-01T00:00:00Z"},
            {"t": {**TEXT, "format": "date-time"}},
            True,
        ),
        ("self.d == duration('90s')", {"d": "1m30s"}, {"d": {**TEXT, "format": "duration"}}, True),
        ("self.m.all(k, self.m[k] > 0)", {"m": {"x": 1}}, {"m": {"type": "object", "additionalProperties": INT}}, True),
        ("'x' in self.m", {"m": {"y": 1}}, {"m": {"type": "object", "additionalProperties": INT}}, False),
    ],
)
def test_rules_see_values_typed_by_their_schema(rule: str, spec: Json, properties: Json, holds: bool) -> None:
    errors = check(rule, spec, properties=properties)
    assert [str(error) for error in errors] == (
        [] if holds else [f'spec: Invalid value: "object": failed rule: {rule}']
    )


def test_a_transition_rule_is_asked_on_updates_only() -> None:
    rule = {"rule": "self.a == oldSelf.a", "message": "a cannot change"}
    assert check(rule, {"a": 1}, None, {"a": INT}) == []
    assert check(rule, {"a": 1}, {"a": 1}, {"a": INT}) == []
    (error,) = check(rule, {"a": 2}, {"a": 1}, {"a": INT})
    assert str(error) == 'spec: Invalid value: "object": a cannot change'


def test_an_optional_old_self_is_asked_on_creation_too() -> None:
    rule = {"rule": "oldSelf.hasValue() || self.a == 1", "optionalOldSelf": True}
    assert check(rule, {"a": 1}, None, {"a": INT}) == []
    assert len(check(rule, {"a": 2}, None, {"a": INT})) == 1
    assert check(rule, {"a": 2}, {"a": 1}, {"a": INT}) == []


def test_an_unchanged_value_is_not_held_against_a_new_rule() -> None:
    assert check("self.a < 5", {"a": 9}, {"a": 9}, {"a": INT}) == []
    assert len(check("self.a < 5", {"a": 8}, {"a": 9}, {"a": INT})) == 1


def test_items_of_a_map_list_are_compared_with_their_own_past() -> None:
    items = {
        "type": "object",
        "properties": {"k": TEXT, "v": INT},
        "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "v only grows"}],
    }
    properties = {
        "l": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": items,
        }
    }
    old = {"l": [{"k": "a", "v": 1}, {"k": "b", "v": 5}]}
    assert check("true", {"l": [{"k": "b", "v": 6}, {"k": "a", "v": 1}, {"k": "c", "v": 0}]}, old, properties) == []
    (error,) = check("true", {"l": [{"k": "b", "v": 4}, {"k": "a", "v": 1}]}, old, properties)
    assert str(error) == 'spec.l[0]: Invalid value: "object": v only grows'


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"messageExpression": "'a is ' + string(self.a)"}, 'spec: Invalid value: "object": a is 9'),
        ({"messageExpression": "self.nope", "message": "fixed"}, 'spec: Invalid value: "object": fixed'),
        ({"message": "m", "fieldPath": ".a"}, 'spec.a: Invalid value: "object": m'),
        ({"message": "m", "reason": "FieldValueForbidden"}, "spec: Forbidden: m"),
        ({"message": "m", "reason": "FieldValueRequired"}, "spec: Required value: m"),
        ({"message": "m", "reason": "FieldValueDuplicate"}, 'spec: Duplicate value: "object"'),
    ],
)
def test_a_rule_chooses_its_message_its_field_and_its_reason(more: Json, text: str) -> None:
    (error,) = check({"rule": "self.a < 5", **more}, {"a": 9}, properties={"a": INT})
    assert str(error) == text


def test_a_rule_that_fails_to_evaluate_says_why() -> None:
    (error,) = check("self.l[3] == 'x'", {"l": ["a"]}, properties={"l": TEXTS})
    assert "index out of bounds" in str(error)
    (error,) = check("self.nope == 1", {"a": 1}, properties={"a": INT})
    assert str(error) == 'spec: Invalid value: "object": no such key: nope evaluating rule: failed rule: self.nope == 1'


def test_rules_at_the_root_see_the_name_and_nothing_else_of_metadata() -> None:
    root = Schema(
        {
            "type": "object",
            "properties": {"metadata": {"type": "object"}},
            "x-kubernetes-validations": [{"rule": "self.metadata.name.size() <= 3 && !has(self.metadata.labels)"}],
        }
    )
    obj = {"metadata": {"name": "abc", "labels": {"a": "b"}}}
    assert cel_rules.check(obj, root, None) == []
    assert len(cel_rules.check({"metadata": {"name": "abcd"}}, root, None)) == 1
