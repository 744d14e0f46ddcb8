"""Results of an evaluation, small enough for a container's termination message.

Kubernetes keeps 4096 bytes of it, and it is the only word of a pod that needs no further right to be read. A row of
JSON is some 150 bytes; compressed, one is about 30.
"""

import base64
import json
import zlib
from collections.abc import Sequence

from pydantic import Field
from pydantic_core import from_json

from alidade_crds.base import Report
from alidade_crds.evaluation import EvaluationResult

_FIELDS = ("suite", "metric", "model", "value", "low", "high", "n", "verdict", "difference_low", "difference_high")
_DIGITS = 5
_LONGEST = 1 << 20
"""Bytes that results may unpack to; far above the most rows there can be."""


class PackedResults(Report):
    """Rows of results, packed, and how many of the last were left out."""

    rows: int = Field(ge=0, description="Rows that are packed.")
    omitted: int = Field(0, ge=0, description="Rows that were left out at the end.")
    packed: str = Field(description="Base85 of zlib of a JSON list of rows, each a list of fields.")

    @classmethod
    def of(cls, results: Sequence[EvaluationResult], *, omitted: int = 0) -> "PackedResults":
        """Packs results, numbers rounded to five significant digits."""
        rows = [[_short(getattr(result, field)) for field in _FIELDS] for result in results]
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
        packed = base64.b85encode(zlib.compress(text.encode(), 9)).decode()
        return cls(rows=len(rows), omitted=omitted, packed=packed)

    def results(self) -> list[EvaluationResult]:
        """The rows. Raises ValueError for what is not packed results."""
        try:
            decoder = zlib.decompressobj()
            text = decoder.decompress(base64.b85decode(self.packed), _LONGEST)
            if decoder.unconsumed_tail:
                raise ValueError("packed results are longer than results can be")
            rows = from_json(text)  # which bounds the nesting, and says so by a ValueError
            return [EvaluationResult.model_validate(dict(zip(_FIELDS, row, strict=True))) for row in rows]
        except (zlib.error, TypeError) as error:
            raise ValueError(f"not packed results: {error}") from error

    def shorter(self) -> "PackedResults":
        """Without its last rows: at least one of them, and about a tenth."""
        kept = self.results()[: self.rows - max(1, self.rows // 10)]
        return self.of(kept, omitted=self.omitted + self.rows - len(kept))


def _short(value: object) -> object:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
