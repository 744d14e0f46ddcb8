import json
import random
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CONFIG_MAP_LIMIT = 1024 * 1024  # bytes; etcd's and the API server's limit for a ConfigMap's data
TRAINED_ON = ("train.json", "corpus.json", "demonstrations.json", "preferences.json")
HELD_OUT = ("heldout.json", "questions.json", "ranking.json")
FILES = (*TRAINED_ON, *HELD_OUT)


@pytest.fixture(scope="module")
def data(kbqa: Path) -> dict[str, Any]:
    return {name: json.loads((kbqa / "data" / name).read_text(encoding="utf-8")) for name in FILES}


@pytest.fixture(scope="module")
def answers(make_data: ModuleType, kbqa: Path) -> dict[str, Any]:
    """The fact behind every question that the templates can ask."""
    facts = make_data.read_facts(kbqa / "facts.tsv")
    templates = make_data.read_templates(kbqa / "templates.tsv")
    asked = make_data.questions(facts, templates, "train") + make_data.questions(facts, templates, "heldout")
    return {question.text: question.fact for question in asked}


def write_sources(folder: Path, facts: str, templates: str) -> list[str]:
    (folder / "facts.tsv").write_text(f"language\tpredicate\tsubject\tobject\n{facts}", encoding="utf-8")
    (folder / "templates.tsv").write_text(f"language\tpredicate\tuse\ttext\n{templates}", encoding="utf-8")
    return [
        *("--facts", str(folder / "facts.tsv")),
        *("--templates", str(folder / "templates.tsv")),
        *("--output", str(folder / "data")),
    ]


CAPITALS = "en\tcapital\tFrance\tParis\nen\tcapital\tJapan\tTokyo\nen\tcapital\tPeru\tLima\n"
CAPITAL_TEMPLATES = (
    "en\tcapital\tstatement\tThe capital of {subject} is {object}.\n"
    "en\tcapital\ttrain\tWhat is the capital of {subject}?\n"
    "en\tcapital\theldout\tTell me the capital of {subject}.\n"
    "en\tcurrency\tstatement\tOne pays in {object} in {subject}.\n"
    "en\tcurrency\ttrain\tHow does one pay in {subject}?\n"
    "en\tcurrency\theldout\tName the currency of {subject}.\n"
)
SOURCES = (CAPITALS + "en\tcurrency\tFrance\teuro\nen\tcurrency\tJapan\tyen\n", CAPITAL_TEMPLATES)


def test_the_committed_files_are_what_the_script_makes(
    make_data: ModuleType, kbqa: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_data.main(["--output", str(tmp_path)]) == 0
    stale = [name for name in FILES if (tmp_path / name).read_bytes() != (kbqa / "data" / name).read_bytes()]
    assert stale == [], "run: python examples/kbqa/make_data.py"
    assert sorted(path.name for path in (kbqa / "data").glob("*.json")) == sorted(FILES)


def test_all_files_together_fit_into_one_config_map(kbqa: Path) -> None:
    assert sum((kbqa / "data" / name).stat().st_size for name in FILES) < CONFIG_MAP_LIMIT


def test_every_predicate_has_statements_and_train_and_heldout_templates(make_data: ModuleType, kbqa: Path) -> None:
    templates = make_data.read_templates(kbqa / "templates.tsv")
    kinds = {fact.kind for fact in make_data.read_facts(kbqa / "facts.tsv")}
    for kind in kinds:
        texts = {use: templates.get((*kind, use), []) for use in make_data.USES}
        assert len(texts["statement"]) * len(texts["heldout"]) >= 1, kind
        assert len(texts["train"]) >= 3, kind
        assert not set(texts["train"]) & set(texts["heldout"]), kind
    assert {template[:2] for template in templates} == kinds


def test_a_question_has_one_answer(make_data: ModuleType, kbqa: Path) -> None:
    facts = make_data.read_facts(kbqa / "facts.tsv")
    templates = make_data.read_templates(kbqa / "templates.tsv")
    found: dict[str, set[str]] = {}
    for use in ("train", "heldout"):
        for question in make_data.questions(facts, templates, use):
            found.setdefault(question.text, set()).add(question.fact.object)
    assert {text: objects for text, objects in found.items() if len(objects) > 1} == {}


def test_what_is_said_in_both_languages_agrees_in_number(make_data: ModuleType, kbqa: Path) -> None:
    counts = Counter(fact.kind for fact in make_data.read_facts(kbqa / "facts.tsv"))
    only_in_one = {"provincial_capital", "abbreviation", "mountain_province", "author"}
    for language, predicate in counts:
        if predicate not in only_in_one:
            assert counts["zh", predicate] == counts["en", predicate], (language, predicate)


def texts(data: dict[str, Any], name: str) -> list[str]:
    """What a file shows before any answer: its questions, and the corpus' sentences."""
    return [instance.get("text") or instance["input"] for instance in data[name]["instances"]]


def answered(data: dict[str, Any], name: str) -> dict[str, str]:
    """Questions with their right answers."""
    found = {}
    for instance in data[name]["instances"]:
        output = instance["output"]
        right = output if isinstance(output, str) else next(one["text"] for one in output if one["score"] == 1)
        found[instance["input"]] = right
    return found


def test_held_out_questions_stand_in_nothing_that_is_trained_on(
    data: dict[str, Any], make_data: ModuleType, kbqa: Path
) -> None:
    facts = make_data.read_facts(kbqa / "facts.tsv")
    templates = make_data.read_templates(kbqa / "templates.tsv")
    every_heldout = {question.text for question in make_data.questions(facts, templates, "heldout")}
    for name in TRAINED_ON:
        assert not every_heldout & set(texts(data, name)), name
    for name in HELD_OUT:
        assert set(texts(data, name)) <= every_heldout, name


def test_answers_are_those_of_the_facts(data: dict[str, Any], answers: dict[str, Any]) -> None:
    for name in set(FILES) - {"corpus.json"}:
        for question, answer in answered(data, name).items():
            assert answers[question].object == answer, name


def test_the_chain_keeps_to_facts_that_its_corpus_states(
    data: dict[str, Any], answers: dict[str, Any], make_data: ModuleType, kbqa: Path
) -> None:
    templates = make_data.read_templates(kbqa / "templates.tsv")
    asked = {answers[question] for question in answered(data, "demonstrations.json")}
    assert {fact.kind for fact in asked} == {fact.kind for fact in answers.values()}
    assert set(make_data.statements(sorted(asked, key=str), templates)) <= set(texts(data, "corpus.json"))
    for name in ("preferences.json", "questions.json", "ranking.json"):
        assert {answers[question] for question in answered(data, name)} <= asked, name


def test_every_fact_of_the_chain_is_compared(data: dict[str, Any], answers: dict[str, Any]) -> None:
    asked = {answers[question] for question in answered(data, "demonstrations.json")}
    compared = Counter(answers[question] for question in answered(data, "preferences.json"))
    assert compared == dict.fromkeys(asked, 4)


def test_a_ranking_has_one_right_answer_among_wrong_ones_of_the_same_predicate(
    data: dict[str, Any], answers: dict[str, Any]
) -> None:
    objects: dict[tuple[str, str], set[str]] = {}
    for question in answered(data, "demonstrations.json"):
        objects.setdefault(answers[question].kind, set()).add(answers[question].object)
    for instance in data["ranking.json"]["instances"]:
        fact = answers[instance["input"]]
        shown = [candidate["text"] for candidate in instance["output"]]
        assert [c["text"] for c in instance["output"] if c["score"] == 1] == [fact.object]
        assert len(shown) == len(set(shown)) == min(4, len(objects[fact.kind]))
        assert set(shown) <= objects[fact.kind]


def test_a_preference_has_wrong_answers_of_the_predicate_of_another_and_of_none(
    data: dict[str, Any], answers: dict[str, Any]
) -> None:
    objects: dict[tuple[str, str], set[str]] = {}
    for fact in answers.values():
        objects.setdefault(fact.kind, set()).add(fact.object)
    names = {name for of_kind in objects.values() for name in of_kind}
    kinds: Counter[str] = Counter()
    for instance in data["preferences.json"]["instances"]:
        fact = answers[instance["input"]]
        shown = [candidate["text"] for candidate in instance["output"]]
        assert len(set(shown)) == len(shown)
        assert sum(candidate["score"] for candidate in instance["output"]) == 1
        for text in set(shown) - {fact.object}:
            kinds["same" if text in objects[fact.kind] else "other" if text in names else "garbled"] += 1
    total = sum(kinds.values())
    assert kinds["same"] > 0.4 * total  # three of six are drawn so, fewer where a predicate has few objects
    assert min(kinds["other"], kinds["garbled"]) > 0.1 * total


def test_a_garbled_answer_is_neither_of_the_two(make_data: ModuleType) -> None:
    for seed in range(200):
        mixed = make_data.garbled("Paris", "Rome", random.Random(seed))
        assert mixed not in ("", "Paris", "Rome")
        assert set(mixed) <= set("ParisRome")
    assert make_data.garbled("H", "H", random.Random(0)) == "HH"


def test_types_and_keys_are_those_of_lmflow(data: dict[str, Any]) -> None:
    keys = {
        "train.json": ("text2text", {"input", "output"}),
        "heldout.json": ("text2text", {"input", "output"}),
        "corpus.json": ("text_only", {"text"}),
        "ranking.json": ("text_to_scored_textlist", {"input", "output"}),
        "preferences.json": ("text_to_scored_textlist", {"input", "output"}),
        "demonstrations.json": ("text2text", {"input", "output"}),
        "questions.json": ("text2text", {"input", "output"}),
    }
    for name, (type_name, fields) in keys.items():
        assert data[name]["type"] == type_name
        assert all(set(instance) == fields for instance in data[name]["instances"]), name


def test_every_fact_is_asked_for_in_five_of_its_wordings_and_every_wording_is_used(
    data: dict[str, Any], answers: dict[str, Any], make_data: ModuleType, kbqa: Path
) -> None:
    trained = {instance["input"] for instance in data["train.json"]["instances"]}
    assert set(Counter(answers[text] for text in trained).values()) == {5}
    templates = make_data.read_templates(kbqa / "templates.tsv")
    for (language, predicate, use), texts in templates.items():
        if use == "train":
            subjects = [fact.subject for fact in set(answers.values()) if fact.kind == (language, predicate)]
            unused = [text for text in texts if not trained & {text.format(subject=subject) for subject in subjects}]
            assert unused == []


def test_another_seed_asks_about_the_same_facts_in_other_words(
    make_data: ModuleType, tmp_path: Path, data: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_data.main(["--output", str(tmp_path), "--seed", "1"]) == 0
    other = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))["instances"]
    first = data["train.json"]["instances"]
    assert {pair["input"] for pair in other} != {pair["input"] for pair in first}
    assert Counter(pair["output"] for pair in other) == Counter(pair["output"] for pair in first)


def test_the_size_of_one_file_leaves_the_others_alone(
    make_data: ModuleType, tmp_path: Path, kbqa: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_data.main(["--output", str(tmp_path), "--comparisons", "1"]) == 0
    changed = [name for name in FILES if (tmp_path / name).read_bytes() != (kbqa / "data" / name).read_bytes()]
    assert changed == ["preferences.json"]


def test_own_facts_and_templates_can_be_used(
    make_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_data.main(write_sources(tmp_path, *SOURCES)) == 0
    corpus = json.loads((tmp_path / "data" / "corpus.json").read_text(encoding="utf-8"))
    assert {"text": "The capital of France is Paris."} in corpus["instances"]
    assert "corpus.json: 10 instances" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("facts", "templates", "message"),
    [
        (
            CAPITALS + "en\tcapital\tFrance\tLyon\n",
            CAPITAL_TEMPLATES,
            "facts.tsv:5: capital of France is already given in line 2",
        ),
        (
            "en\tcapital\tFrance\n",
            CAPITAL_TEMPLATES,
            "facts.tsv:2: 4 fields separated by tabs are needed, found 'en\\tcapital\\tFrance'",
        ),
        (
            CAPITALS,
            "en\tcapital\ttest\tWhere is {subject}?\n",
            "templates.tsv:2: use is 'test'; it is one of statement, train, heldout",
        ),
        (
            CAPITALS,
            "en\tcapital\ttrain\tIs {object} in {subject}?\n",
            "templates.tsv:2: 'Is {object} in {subject}?' must name {subject}, and {object} only in a statement",
        ),
        (
            CAPITALS,
            "en\tcapital\ttrain\tWhere is {subject}?\n",
            "templates.tsv: no statement template for en capital; add a line",
        ),
        (
            CAPITALS[: CAPITALS.index("en\tcapital\tJapan")],
            CAPITAL_TEMPLATES,
            "facts.tsv: en capital has a single object, 'Paris': "
            "no wrong answer can be drawn; add a fact with another one",
        ),
    ],
)
def test_a_broken_source_is_named_with_its_line(
    make_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], facts: str, templates: str, message: str
) -> None:
    assert make_data.main(write_sources(tmp_path, facts, templates)) == 1
    assert capsys.readouterr().err == f"make_data: {message}\n"


@pytest.mark.parametrize("flag", ["--questions", "--heldout", "--facts-of-chain", "--comparisons", "--candidates"])
def test_sizes_below_the_least_are_refused(
    make_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        make_data.main(["--output", str(tmp_path), flag, "0"])
    assert stop.value.code == 2
    assert flag in capsys.readouterr().err
