"""Which language a text is in, by its sequences of bytes (Lui and Baldwin 2012; the library py3langid)."""

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

SURE = 0.5
"""Probability from which on a language counts as told. Measured: "Paris" and "42" get 0.01, a question of six words or
of six Chinese characters above 0.8."""
_LOOKED_AT = 2000  # characters: more tell no more, and the time grows with them


def language_of(text: str) -> str | None:
    """The ISO 639-1 code of the text's language; None where it is too short or too mixed to tell."""
    language, probability = _identifier().classify(text[:_LOOKED_AT])
    return str(language) if probability >= SURE else None


@cache
def languages_known() -> frozenset[str]:
    """The codes that `language_of` can answer."""
    return frozenset(map(str, _identifier().labels))


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
