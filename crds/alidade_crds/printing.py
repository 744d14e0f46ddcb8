"""Words of others on a reader's screen."""

_NOT_PRINTED = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """The text without control characters, by which whoever wrote it could write anywhere on a reader's screen."""
    return text.translate(_NOT_PRINTED)
