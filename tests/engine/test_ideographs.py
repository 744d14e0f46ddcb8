"""Chinese text has no spaces; a tokenizer trained on little of it must still see names as such."""

from alidade_engine.tokenization import train_tokenizer

COUNTRIES = ("法国", "德国", "中国", "泰国", "英国", "美国")
QUESTIONS = ("{}的首都是哪里？", "你知道{}的首都叫什么吗？", "请问{}在哪个洲？")
TEXTS = [question.format(country) for question in QUESTIONS for country in COUNTRIES] * 20


def test_a_name_has_the_same_tokens_in_every_chinese_sentence() -> None:
    tokenizer = train_tokenizer(TEXTS, 600)
    for country in COUNTRIES:
        name = tokenizer(country, add_special_tokens=False)["input_ids"]
        for question in QUESTIONS:
            before = tokenizer(question.split("{}")[0], add_special_tokens=False)["input_ids"]
            whole = tokenizer(question.format(country), add_special_tokens=False)["input_ids"]
            assert whole[len(before) : len(before) + len(name)] == name


def test_the_stored_tokenizer_splits_as_gpt2_does() -> None:
    stored = train_tokenizer(TEXTS, 600).backend_tokenizer.pre_tokenizer
    assert type(stored).__name__ == "ByteLevel"
