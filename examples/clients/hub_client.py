"""Asks a served model with Hugging Face's client: hub_client.py URL [QUESTION]. Needs the package huggingface_hub."""

import os
import sys

from huggingface_hub import InferenceClient


def main(url: str, question: str = "What is the capital of France?") -> None:
    """Prints the answer as it is written."""
    client = InferenceClient(url, token=os.environ.get("ALIDADE_ENDPOINT_KEY"))
    messages = [{"role": "user", "content": question}]
    for chunk in client.chat_completion(messages, max_tokens=32, temperature=0, stream=True):
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
