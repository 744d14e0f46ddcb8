"""The document says of us and of peers what the results' files say."""

from bench import peers


def test_the_table_beside_peers_is_made_of_the_results() -> None:
    document = peers.README.read_text()
    assert peers.with_table(document) == document, "run python bench/peers.py"


def test_a_row_says_who_is_better_and_by_how_much() -> None:
    row = peers.Row(
        "SFT, packed", "TRL", "tokens per CPU-second", 1390.5, 869.5, 1.598, (1007.6, 1448.9), "loss 8.9 / 8.8"
    )
    assert str(row) == (
        "| SFT, packed | TRL | tokens per CPU-second | 1,390 | 870 | 1.60 × | 1,008 / 1,449 | loss 8.9 / 8.8 |"
    )
    assert str(peers.Row("evaluation", "library", "seconds", 2.92, 20.834, 6.72)).endswith(
        "| 2.92 | 20.8 | 6.72 × |  |  |"
    )
