"""Which language a text is in, by its sequences of bytes (Lui and Baldwin 2012; the library py3langid)."""

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

SURE = 0.5
"""Probability from which on a language counts as told. Measured: "Paris" and "42" get 0.01, a question of six words or
of six Chinese characters above 0.8."""
_NO_LANGUAGE = "zxx"  # by ISO 639: no linguistic content
_LOOKED_AT = 2000  # characters: more tell no more, and the time grows with them


def language_of(text: str) -> str | None:
    """The ISO 639 code of the text's language; None where there is none, or too little to tell."""
    language, probability = _identifier().classify(text[:_LOOKED_AT])
    return str(language) if probability >= SURE and language != _NO_LANGUAGE else None


@cache
def languages_known() -> frozenset[str]:
    """The codes that `language_of` can answer."""
    return frozenset(map(str, _identifier().labels)) - {_NO_LANGUAGE}


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
