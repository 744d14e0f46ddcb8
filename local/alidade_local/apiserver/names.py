"""Rules for names and labels."""

import re
from collections.abc import Mapping
from typing import Any

from alidade_local.apiserver.errors import FieldError, invalid

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"


def label_problem(name: str) -> str:
    """What keeps a name from being a DNS label (RFC 1123), or nothing."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    if re.fullmatch(_LABEL, name):
        return ""
    return (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
    )


def service_problem(name: str) -> str:
    """What keeps a name from being a DNS label that starts with a letter (RFC 1035), or nothing."""
    pattern = "[a-z]([-a-z0-9]*[a-z0-9])?"
    if len(name) > 63:
        return "must be no more than 63 characters"
    if re.fullmatch(pattern, name):
        return ""
    return (
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
        "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation "
        f"is '{pattern}')"
    )


def subdomain_problem(name: str) -> str:
    """What keeps a name from being a DNS subdomain (RFC 1123), or nothing."""
    pattern = rf"{_LABEL}(\.{_LABEL})*"
    if len(name) > 253:
        return "must be no more than 253 characters"
    if re.fullmatch(pattern, name):
        return ""
    return (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    )


def port_name_problems(name: str) -> list[str]:
    """What keeps a name from being that of a port (RFC 6335, section 5.1)."""
    problems = [
        (len(name) > 15, "must be no more than 15 characters"),
        (
            not re.fullmatch("[-a-z0-9]*", name),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (not re.search("[a-z]", name), "must contain at least one letter (a-z)"),
        ("--" in name, "must not contain consecutive hyphens"),
        (name.startswith("-") or name.endswith("-"), "must not begin or end with a hyphen"),
    ]
    return [problem for is_so, problem in problems if is_so]


def path_segment_problem(name: str) -> str:
    """What keeps a name from being part of a URL path, or nothing (RBAC objects)."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    for character in "/%":
        if character in name:
            return f"may not contain '{character}'"
    return ""


def qualified_name_problem(name: str) -> str:
    """What keeps a name from being a label key, annotation key or finalizer, or nothing."""
    prefix, slash, last = name.rpartition("/")
    if slash and subdomain_problem(prefix):
        return f"prefix part {subdomain_problem(prefix)}"
    if not last:
        return "name part must be non-empty"
    if len(last) > 63:
        return "name part must be no more than 63 characters"
    if re.fullmatch(_QUALIFIED, last):
        return ""
    return (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
        f"'{_QUALIFIED}')"
    )


def label_value_errors(value: Any, path: str) -> list[FieldError]:
    """What is wrong with a label's value."""
    if len(value) > 63:
        return [invalid(path, value, "must be no more than 63 characters")]
    if re.fullmatch(f"({_QUALIFIED})?", value):
        return []
    return [
        invalid(
            path,
            value,
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
            "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        )
    ]


def label_errors(labels: Mapping[str, str], path: str) -> list[FieldError]:
    """What is wrong with the keys and values of labels."""
    errors: list[FieldError] = []
    for key, value in labels.items():
        if problem := qualified_name_problem(key):
            errors.append(invalid(path, key, problem))
        errors.extend(label_value_errors(value, path))
    return errors
