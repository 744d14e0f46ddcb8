"""What all types of users' blocks have in common."""

from __future__ import annotations

from alidade_crds.base import Field, Spec


class _Block(Spec):
    size: int = 1


class _Older(Spec):
    name: str
    block: _Block = Field(default_factory=_Block)


class _BlockWithMore(_Block):
    wide: bool = False


class _Newer(_Older):
    block: _BlockWithMore = Field(default_factory=_BlockWithMore)
    comment: str = ""


def test_what_was_chosen_is_the_same_to_a_release_that_knows_more_fields() -> None:
    """Names of what a run has made, and fingerprints of checkpoints, are made of it."""
    for given in ({"name": "a"}, {"name": "a", "block": {"size": 1}}, {"name": "a", "block": {"size": 2}}):
        assert _Newer.model_validate(given).chosen() == _Older.model_validate(given).chosen()
    assert _Newer(name="a", block=_BlockWithMore(wide=True)).chosen() != _Older(name="a").chosen()
