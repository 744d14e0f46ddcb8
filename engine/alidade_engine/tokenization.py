"""Tokenizers: trained on a dataset, loaded from a model's folder."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.templates import resolve_template

# A conversation's turns end with the same token as documents, as in ChatML, so one end-of-sequence token stops both.
PAD, BOS, EOS, TURN = "<|pad|>", "<|bos|>", "<|im_end|>", "<|im_start|>"
SPECIAL_TOKENS = [PAD, BOS, EOS, TURN]
# Chinese is written without spaces: left whole, the sentences of a small dataset grow into tokens ("国的首都是"), and a
# name has other tokens in each question. On examples/kbqa: held-out Chinese questions answered 83 %, without it 19 %.
IDEOGRAPH = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
# 256 bytes and the special tokens: below that, a text could not be written.
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, model_max_length: int = 1_000_000, template: str = "chatml"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most vocab_size entries, trained on texts; the same texts give the same one.

    Every text can be written in it and read back unchanged. BOS, EOS and PAD are three different tokens; BOS is put
    before each text; the chat template is stored with it. It splits text as GPT-2 does, which llama.cpp knows how to
    repeat. Raises JobFailure(DataEmpty) when texts holds nothing.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"model.init.vocabSize is {vocab_size}; a byte-level tokenizer needs at least {SMALLEST_VOCABULARY}.",
        )
    backend = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(IDEOGRAPH), "isolated"), byte_level])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    seen = _Counted(texts)
    backend.train_from_iterator(seen, trainer)
    # No merge joins two ideographs, so GPT-2's own splitting gives the same tokens: what is stored is plain GPT-2.
    backend.pre_tokenizer = byte_level
    if not seen.characters:
        raise JobFailure(FailureReason.DATA_EMPTY, "The dataset holds no text to train a tokenizer on.")
    bos = backend.token_to_id(BOS)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, bos)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[TURN],
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
        padding_side="right",
    )
    tokenizer.chat_template = resolve_template(tokenizer, template)
    return tokenizer


class _Counted:
    """Texts passed through, with a count of their characters."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self.characters = 0

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> str:
        text = next(self._texts)
        self.characters += len(text)
        return text


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, as it is there; `ensure_pad_token` sees to what padding needs.

    Raises JobFailure(ModelNotFound) when the folder has none, ModelInvalid when it cannot be read.
    """
    if not any(
        (path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    ):
        raise JobFailure(
            FailureReason.MODEL_NOT_FOUND,
            f"{path} has no tokenizer (tokenizer.json or tokenizer.model); a model folder holds its tokenizer too.",
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # the libraries below raise whatever they like on damaged files
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise JobFailure(FailureReason.MODEL_INVALID, f"The tokenizer in {path} cannot be read: {first}") from error
    return tokenizer
