"""Pieces learned on texts: a tokenizer's byte pair encoding, gone on with from where its training stopped."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat

from tokenizers import Tokenizer, models, trainers

from alidade_trainer.vocabulary.alphabets import Alphabet

# Letters that the base's entries are given while pieces are learned: from the first plane above the usual one, which
# leaves room for a million entries.
_FIRST_LETTER = 0x10000
_LEAST_COUNT = 2
# Where letters are not entries yet, two merges in three stand for a part of one.
_SPARE = 3


def learn_pieces(backend: Tokenizer, alphabet: Alphabet, texts: Iterable[str], size: int) -> list[bytes]:
    """Candidates for size pieces, the most frequent pairs first: whole letters only, and enough for what is left out.

    Every word of the texts is written in the base's tokens, each as one letter; the library's BPE trainer then merges
    letters. So each piece is joined of tokens that the base really gives, and none is unreachable (unlike pieces of a
    tokenizer that was trained apart).
    """
    counts = Counter(word for text in texts for word in alphabet.words(backend, text))
    written = {word: _letters(backend, word) for word in counts}
    letters = set().union(*written.values()) if written else set()
    learner = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=len(letters) + _SPARE * size, min_frequency=_LEAST_COUNT, special_tokens=[], show_progress=False
    )
    learner.train_from_iterator(_repeated(written, counts), trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    contents = {letter: alphabet.content(_entry(backend, letter)) for letter in letters}
    pieces = [b"".join(contents[letter] for letter in left + right) for left, right in merges]
    return [piece for piece in pieces if _is_text(piece)]


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:  # a letter, or two, cut in the middle
        return False
    return True


def _letters(backend: Tokenizer, word: str) -> str:
    return "".join(chr(_FIRST_LETTER + token.id) for token in backend.model.tokenize(word))


def _entry(backend: Tokenizer, letter: str) -> str:
    return str(backend.id_to_token(ord(letter) - _FIRST_LETTER))


def _repeated(written: dict[str, str], counts: Counter[str]) -> Iterator[str]:
    for word, letters in written.items():
        yield from repeat(letters, counts[word])
