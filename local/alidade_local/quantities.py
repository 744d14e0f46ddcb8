"""Kubernetes quantities ("500m", "2Gi") as numbers."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip


_BINARY = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki", "")
_DECIMAL = ("E", "P", "T", "G", "M", "k", "", "m", "u", "n")


def canonical_quantity(quantity: str | int | float) -> str:
    """The quantity as the API server writes it: the largest suffix of its family that leaves a whole number."""
    text = str(quantity).strip()
    value = parse_quantity(text)
    if "e" in text or text[:-1].endswith("E"):
        return text  # a family of its own
    suffixes = _BINARY if text.endswith("i") and value == value.to_integral_value() else _DECIMAL
    for suffix in suffixes:
        number = value / _SUFFIXES[suffix]
        if number == number.to_integral_value():
            return f"{int(number)}{suffix if number else ''}"
    return text


def parse_quantity(quantity: str | int | float) -> Decimal:
    """The value in the quantity's own unit (cores, bytes, pieces); raises ValueError for what is not a quantity."""
    text = str(quantity).strip()
    number = text.rstrip("numkKMGTPEi")
    if number and number[-1] in "eE":
        number = number[:-1]
    suffix = text[len(number) :]
    try:
        if number != number.strip():
            raise KeyError(text)
        if suffix[:1] in ("e", "E") and suffix[1:]:
            return Decimal(text)
        return Decimal(number) * _SUFFIXES[suffix]
    except (InvalidOperation, KeyError) as error:
        raise ValueError(f"{text!r} is not a quantity; use a number with a suffix such as m, Ki, Mi, Gi") from error
