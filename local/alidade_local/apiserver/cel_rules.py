"""x-kubernetes-validations: the CEL rules of structural schemas.

Expressions are evaluated by the `common-expression-language` package (the Rust crate `cel`). Two things it does not
know are refused or differ: the optional field syntax `a.?b` does not compile, and `size()` of a string counts bytes of
UTF-8 where Kubernetes counts characters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cel

from alidade_local.apiserver.cel_functions import FUNCTIONS
from alidade_local.apiserver.cel_values import cel_value, escaped
from alidade_local.apiserver.errors import FieldError, duplicate, invalid, required
from alidade_local.apiserver.schema import Schema

Json = dict[str, Any]

_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
_NO_OLD = object()
_SELF = re.compile(r"\b(?:self|oldSelf)\b(?:\.([A-Za-z_]\w*)(?!\w*\s*\())?")
_MACRO_VARIABLE = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(\s*(\w+)\s*,")


@dataclass(frozen=True)
class _Expression:
    program: Any
    functions: tuple[str, ...]
    """Functions outside the standard that it calls."""
    uses_old: bool
    fields: frozenset[str] | None
    """Fields of self and oldSelf that it reads; None when it may read all of them."""


class CelError(ValueError):
    """An expression that is no CEL, or calls what does not exist."""


@lru_cache(maxsize=4096)
def _compile(source: str) -> _Expression:
    try:
        program = cel.compile(source)
    except ValueError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise CelError(lines[0].partition("': ")[2] or lines[0]) from None
    variables = program.variables()
    bound = set(_MACRO_VARIABLE.findall(source))
    unknown = sorted(set(variables) - bound - {"self", "oldSelf"} - _NAMESPACES - _TYPES)
    if unknown:
        raise CelError(f"undeclared reference to '{unknown[0]}'")
    called = [name for name in program.functions() if re.match(r"[A-Za-z]", name)]
    for name in called:
        if name not in FUNCTIONS and name not in _STANDARD:
            raise CelError(f"undeclared reference to '{name}'")
    functions = tuple(name for name in called if name in FUNCTIONS)
    return _Expression(program, functions, "oldSelf" in variables, _fields_read(source))


def _fields_read(source: str) -> frozenset[str] | None:
    fields: set[str] = set()
    for found in _SELF.finditer(source):
        if not found[1]:
            return None
        fields.add(found[1])
    return frozenset(fields)


_NAMESPACES = frozenset(name.partition(".")[0] for name in FUNCTIONS if "." in name) | {"optional"}
_TYPES = frozenset(
    {"bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string", "timestamp", "uint", "type"}
)
_STANDARD = _TYPES | frozenset(
    (
        *("all", "exists", "exists_one", "filter", "has", "map", "optFlatMap", "optMap"),
        *("contains", "dyn", "endsWith", "matches", "size", "startsWith"),
        *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds"),
        *("getMinutes", "getMonth", "getSeconds"),
        *("hasValue", "none", "of", "ofNonZeroValue", "or", "orValue", "value"),
        *("optional.none", "optional.of", "optional.ofNonZeroValue"),
    )
)


def compile_errors(raw: Json, path: str) -> list[FieldError]:
    """What is wrong with one entry of x-kubernetes-validations."""
    errors: list[FieldError] = []
    for name in ("rule", "messageExpression"):
        source = raw.get(name)
        if name == "rule" and not (source or "").strip():
            errors.append(required(f"{path}.rule"))
        elif source:
            try:
                _compile(source)
            except CelError as error:
                errors.append(invalid(f"{path}.{name}", source, f"compilation failed: {error}"))
    if raw.get("reason", _REASONS[0]) not in _REASONS:
        errors.append(invalid(f"{path}.reason", raw["reason"], f"must be one of {', '.join(_REASONS)}"))
    return errors


def check(obj: Json, schema: Schema, old: Json | None) -> list[FieldError]:
    """Every rule that does not hold for the object."""
    errors: list[FieldError] = []
    before = _NO_OLD if old is None else _root_view(old)
    _check(_root_view(obj), before, schema, "", errors)
    return errors


def check_default(value: Any, schema: Schema, path: str) -> list[FieldError]:
    """Every rule that does not hold for the default of a schema, as it stands."""
    errors: list[FieldError] = []
    _check(value, _NO_OLD, schema, path, errors)
    return errors


def _root_view(obj: Json) -> Json:
    """What rules at the root see of metadata: the name only."""
    metadata = {name: obj["metadata"][name] for name in ("name", "generateName") if name in obj["metadata"]}
    return {**obj, "metadata": metadata}


def _check(value: Any, old: Any, schema: Schema, path: str, errors: list[FieldError]) -> None:
    if not schema.has_rules or value is None:
        return
    unchanged = old is not _NO_OLD and value == old
    rules = schema.raw.get("x-kubernetes-validations")
    if rules:
        _check_rules(rules, value, old, schema, path, errors, only_transitions=unchanged)
    for child, child_old, child_schema, child_path in _children(value, old, schema, path):
        _check(child, child_old, child_schema, child_path, errors)


def _children(value: Any, old: Any, schema: Schema, path: str) -> Iterator[tuple[Any, Any, Schema, str]]:
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, item in value.items():
            child = schema.properties.get(name)
            if child is not None:
                yield item, before.get(name, _NO_OLD), child, f"{path}.{name}" if path else name
            elif schema.additional is not None:
                yield item, before.get(name, _NO_OLD), schema.additional, f"{path}[{name}]"
    elif isinstance(value, list) and schema.items is not None:
        by_key = _by_key(old, schema) if isinstance(old, list) else {}
        for index, item in enumerate(value):
            yield item, by_key.get(_key(item, schema), _NO_OLD), schema.items, f"{path}[{index}]"


def _key(item: Any, schema: Schema) -> Any:
    if schema.list_type != "map" or not isinstance(item, dict):
        return None
    return tuple(str(item.get(key)) for key in schema.list_keys)


def _by_key(items: list[Any], schema: Schema) -> dict[Any, Any]:
    """Old items by their keys; items of other lists have no identity and so no past."""
    if schema.list_type != "map":
        return {}
    return {_key(item, schema): item for item in items}


def _check_rules(
    rules: list[Json],
    value: Any,
    old: Any,
    schema: Schema,
    path: str,
    errors: list[FieldError],
    *,
    only_transitions: bool,
) -> None:
    asked = [
        (rule, expression)
        for rule in rules
        if _is_asked(rule, expression := _compile(rule["rule"]), old, only_transitions=only_transitions)
    ]
    if not asked:
        return
    fields = _fields_of_all(asked)
    context = _context(value, old, schema, fields)
    for rule, expression in asked:
        chosen = context
        if expression.uses_old and rule.get("optionalOldSelf"):
            chosen = cel.Context(variables={"self": cel_value(value, schema), "oldSelf": _optional(old, schema)})
        error = _evaluate(rule, expression, chosen, schema, path)
        if error is not None:
            errors.append(error)


def _is_asked(rule: Json, expression: _Expression, old: Any, *, only_transitions: bool) -> bool:
    if expression.uses_old:
        return old is not _NO_OLD or bool(rule.get("optionalOldSelf"))
    return not only_transitions


def _fields_of_all(asked: list[tuple[Json, _Expression]]) -> frozenset[str] | None:
    """Fields that some of the rules and their messages read; None for all."""
    fields: frozenset[str] = frozenset()
    for rule, expression in asked:
        message = rule.get("messageExpression")
        for read in (expression.fields, _compile(message).fields if message else frozenset()):
            if read is None:
                return None
            fields |= read
    return fields


def _optional(old: Any, schema: Schema) -> Any:
    return cel.OptionalValue.none() if old is _NO_OLD else cel.OptionalValue.of(cel_value(old, schema))


def _context(value: Any, old: Any, schema: Schema, fields: frozenset[str] | None) -> Any:
    """The variables of rules, with no more of the values than the rules read: converting them costs most."""
    variables = {"self": _part(value, schema, fields)}
    if old is not _NO_OLD:
        variables["oldSelf"] = _part(old, schema, fields)
    return cel.Context(variables=variables)


def _part(value: Any, schema: Schema, fields: frozenset[str] | None) -> Any:
    if fields is None or not isinstance(value, dict) or schema.additional is not None:
        return cel_value(value, schema)
    return cel_value({name: item for name, item in value.items() if escaped(name) in fields}, schema)


def _evaluate(rule: Json, expression: _Expression, context: Any, schema: Schema, path: str) -> FieldError | None:
    try:
        holds = _execute(expression, context)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return invalid(path, schema.type, f"{_problem(error)} evaluating rule: {_message(rule)}")
    if holds is True:
        return None
    return _failure(rule, _custom_message(rule, context), schema, path)


def _execute(expression: _Expression, context: Any) -> Any:
    for name in expression.functions:
        context.add_function(name, FUNCTIONS[name])
    return expression.program.execute(context)


def _problem(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no such key: {error.args[0]}"
    if isinstance(error, TypeError):
        return "no such overload"
    return str(error).partition(". Check")[0]


def _message(rule: Json) -> str:
    return str(rule.get("message") or f"failed rule: {rule['rule'].strip()}")


def _custom_message(rule: Json, context: Any) -> str:
    if rule.get("messageExpression"):
        try:
            text = _execute(_compile(rule["messageExpression"]), context)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            return _message(rule)  # as the original: a message that cannot be made falls back to the fixed one
        if isinstance(text, str) and text.strip() and "\n" not in text:
            return text
    return _message(rule)


def _failure(rule: Json, message: str, schema: Schema, path: str) -> FieldError:
    where = path
    if rule.get("fieldPath"):
        where = f"{path}{rule['fieldPath']}" if path else rule["fieldPath"].removeprefix(".")
    reason = rule.get("reason") or "FieldValueInvalid"
    if reason == "FieldValueForbidden":
        return FieldError(where, reason, f"Forbidden: {message}")
    if reason == "FieldValueRequired":
        return required(where, message)
    if reason == "FieldValueDuplicate":
        return duplicate(where, schema.type)
    return invalid(where, schema.type, message)
