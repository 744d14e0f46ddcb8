"""A tiny model and servers of it: real processes, asked over real HTTP."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from alidade_crds.blocks import ModelInit
from alidade_engine.models import init_model
from alidade_engine.tokenization import train_tokenizer
from tests.serving.running import Server

CORPUS = [
    "What is the capital of France? Paris is the capital of France.",
    "中国的首都是哪里？中国的首都是北京。",
    "hello there, how are you?\n\nfine, thank you 😀",
] * 5


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def tiny_model(folder: Path) -> Path:
    """A Llama that never ends by itself and writes whole characters: the other tokens are never the likeliest."""
    tokenizer = train_tokenizer(CORPUS, 420)
    torch.manual_seed(0)
    init = ModelInit(
        hidden_size=64, layers=2, heads=4, kv_heads=2, vocab_size=420, context_length=16384, tie_embeddings=False
    )
    model = init_model(init, tokenizer)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
        broken = [number for number in range(len(tokenizer)) if not tokenizer.decode([number]).isprintable()]
        halves = [number for number in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([number])]
        model.get_output_embeddings().weight[[*tokenizer.all_special_ids, *broken, *halves]] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers keep the converted model, so that only the first converts it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(model_folder: Path, cache: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of the test's own, whose flags are given as keywords, and ends them."""
    started: list[Server] = []

    def starter(model: Path = model_folder, wait: bool = True, **flags: object) -> Server:
        started.append(Server(model, cache, flags))
        if wait:
            started[-1].wait_until_ready()
        return started[-1]

    yield starter
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def server(model_folder: Path, cache: Path) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    running = Server(model_folder, cache, {"slots": 4, "max_concurrent_requests": 64, "max_total_tokens": 512})
    running.wait_until_ready()
    yield running
    running.kill()
