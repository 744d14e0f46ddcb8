"""Parts of pages: safe with any text, and absent when there is nothing to show."""

import pytest

from alidade_engine.pages import frame

HOSTILE = "</style><script>alert(1)</script>"


@pytest.mark.parametrize(
    "part",
    [
        frame.page(HOSTILE, HOSTILE, []),
        frame.tiles([(HOSTILE, HOSTILE)]),
        frame.warnings([HOSTILE]),
        frame.gallery(HOSTILE, [(HOSTILE, "")]),
        frame.facts(HOSTILE, {HOSTILE: HOSTILE}),
        frame.answer_text(HOSTILE),
    ],
)
def test_text_is_escaped(part: str) -> None:
    assert "<script>" not in part
    assert "&lt;script&gt;" in part


def test_what_is_not_there_takes_no_room() -> None:
    assert frame.warnings([]) == ""
    assert frame.gallery("Title", []) == ""
    assert "Loss" not in frame.tiles([("Loss", None), ("Steps", "2")])


def test_an_empty_answer_is_said_to_be_empty() -> None:
    assert frame.answer_text("") == "<i class=quiet>nothing</i>"


def test_nested_settings_become_rows_and_what_is_not_set_is_left_out() -> None:
    settings = {"training": {"seed": 0, "note": None}, "data": [{"uri": "a"}, {"uri": "b"}], "names": ["x"], "none": []}
    assert dict(frame.flat(settings, "")) == {
        "training.seed": "0",
        "data[0].uri": "a",
        "data[1].uri": "b",
        "names": '["x"]',
    }
    assert dict(frame.flat({"seed": 1}, "training")) == {"training.seed": "1"}
