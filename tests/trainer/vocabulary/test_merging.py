"""Entries and merges by hand."""

from alidade_trainer.vocabulary.merging import GrowingVocabulary

MODEL = {"vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "ab": 4, "bc": 5}, "merges": [["a", "b"], ["b", "c"]]}


def test_a_piece_is_joined_of_what_the_base_leaves_of_it() -> None:
    growing = GrowingVocabulary(MODEL, joins_any=False)

    growth = growing.add_all(["abc", "cd", "abcd"])

    assert growth.entries == ["abc", "cd", "abcd"]
    assert growing.merges() == [["a", "b"], ["b", "c"], ["ab", "c"], ["c", "d"], ["abc", "d"]]
    assert growing.cut("abcd") == ["abcd"]


def test_a_missing_link_becomes_a_joint_and_a_known_piece_is_counted() -> None:
    growing = GrowingVocabulary(MODEL, joins_any=False)

    growth = growing.add_all(["ab", "dabc", "dabc"])

    assert growth.entries == ["dab", "dabc"]
    assert (growth.joints, growth.pieces, growth.known) == (["dab"], 1, 1)


def test_what_has_no_room_leaves_nothing_behind() -> None:
    growing = GrowingVocabulary(MODEL, joins_any=False, most=1)

    growth = growing.add_all(["dabc", "cd"])

    assert (growth.entries, growth.over) == (["cd"], 1)
    assert growing.merges() == [*MODEL["merges"], ["c", "d"]]


def test_where_neighbours_are_joined_by_their_text_every_cut_of_an_entry_is_a_merge() -> None:
    # As sentencepiece has it: "abc" from "ab" + "c" and from "a" + "bc", and "bc" from its letters as before.
    growing = GrowingVocabulary(MODEL, joins_any=True)

    growing.add_all(["abc", "dab"])

    assert growing.merges() == [["a", "b"], ["b", "c"], ["a", "bc"], ["ab", "c"], ["d", "ab"]]


def test_an_old_entry_may_be_joined_with_a_new_one_at_its_old_place() -> None:
    model = {"vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, "merges": [["a", "b"], ["ab", "c"]]}
    growing = GrowingVocabulary(model, joins_any=True)

    growing.add_all(["bc"])

    assert growing.merges() == [["a", "b"], ["ab", "c"], ["a", "bc"], ["b", "c"]]
