"""Rules about the folders that no other tool holds."""

import operator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_folder_operator_does_not_hide_the_standard_library() -> None:
    assert operator.__file__ is None or not Path(operator.__file__).is_relative_to(ROOT)
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_tests_are_files_not_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
