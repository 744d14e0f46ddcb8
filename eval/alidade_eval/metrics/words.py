"""Texts as units that are compared and counted: words, and single signs of scripts that are written without spaces."""

import re
from collections.abc import Sequence

_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"  # kana, ideographs, hangul
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; each ideograph, kana and hangul syllable is one."""
    return _UNIT.findall(text.casefold())


def is_chinese(texts: Sequence[str]) -> bool:
    """Whether most words of the texts are ideographs."""
    units = [unit for text in texts for unit in words(text)]
    return 2 * sum(bool(_CHINESE.fullmatch(unit)) for unit in units) > len(units)
