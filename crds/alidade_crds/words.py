"""Enumerations whose members carry their meaning, so that reference pages are made from the code."""

from enum import StrEnum


class Word(StrEnum):
    """A word with its meaning: `NAME = "Word", "meaning"`."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "Word":
        """The member `value`, which carries its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


def documented_members(words: type[Word]) -> dict[str, str]:
    """Every word of an enumeration with its meaning."""
    return {member.value: member.meaning for member in words}
