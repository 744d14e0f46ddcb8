"""The example folder and its scripts, loaded by path: they are scripts, not a package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KBQA = EXAMPLES / "kbqa"


def load_script(name: str, folder: Path = KBQA) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{folder.name}_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def kbqa() -> Path:
    return KBQA


@pytest.fixture(scope="session")
def make_data() -> ModuleType:
    return load_script("make_data")


@pytest.fixture(scope="session")
def nlpcc() -> ModuleType:
    return load_script("nlpcc", EXAMPLES / "nlpcc")
