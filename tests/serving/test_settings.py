"""Flags, environment and keys."""

from pathlib import Path

import pytest

from alidade_serving.front.keys import read_keys
from alidade_serving.settings import read_settings, usable_cpus


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {"ALIDADE_SERVE_MODEL": "/models/kbqa", "ALIDADE_SERVE_SLOTS": "3", "ALIDADE_SERVE_PORT": "9000"}
    settings = read_settings(["--port=9001"], environment)
    assert (settings.name, settings.slots, settings.port, settings.max_total_tokens) == ("kbqa", 3, 9001, 0)
    assert settings.threads >= 1


def test_a_file_is_named_without_its_ending() -> None:
    assert read_settings(["--model=/models/kbqa-q4_k_m.gguf"], {}).name == "kbqa-q4_k_m"


@pytest.mark.parametrize(
    ("argv", "environment", "message"),
    [
        ([], {}, "--model is missing"),
        (["--model=m", "--port=70000"], {}, "70000 is not between 0 and 65535"),
        (["--model=m"], {"ALIDADE_SERVE_SLOTS": "many"}, "argument --slots: 'many' is not a whole number"),
        (["--model=m", "--quantization=q9"], {}, "'q9' is none of f32, f16, q8_0"),
        (
            ["--model=m", "--max-input-tokens=1024", "--max-total-tokens=1024"],
            {},
            "an answer needs at least one token more than its prompt.",
        ),
        (["--model=m", "--max-total-tokens=1"], {}, "an answer needs at least one token more than its prompt."),
        (["--model=m", "--draft-model=d", "--prompt-lookup-tokens=3"], {}, "set one of them"),
        (["--model=m", "--slots=9", "--max-concurrent-requests=8"], {}, "Raise the second or lower the first."),
        (["--model=m", "--adapters=a"], {}, "'a' is not NAME=FOLDER with a name of its own"),
        (["--model=m", "--adapters=a=/1,a=/2"], {}, "'a=/2' is not NAME=FOLDER with a name of its own"),
        (["--model=m", "--drain-timeout-s=-1"], {}, "-1 is not between 0 and 86400 seconds"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_exit_code_2(
    argv: list[str], environment: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(argv, environment)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_keys_come_from_a_file_or_a_mounted_secret(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n\n two \n")
    (tmp_path / "b").write_text("three")
    (tmp_path / "..data").mkdir()
    assert read_keys(tmp_path / "a") == {"one", "two"}
    assert read_keys(tmp_path) == {"one", "two", "three"}
    assert read_keys(None) == frozenset()


def test_an_empty_secret_lets_no_server_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no key"):
        read_keys(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        read_keys(tmp_path / "none")


@pytest.mark.parametrize(("quota", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_a_container_computes_with_the_cpus_it_was_given(tmp_path: Path, quota: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cpus(tmp_path / "cpu.max") == (cpus or usable_cpus(tmp_path / "none"))
