"""Asks a served model with Hugging Face's client: hub_client.py URL [QUESTION]. Needs the package huggingface_hub."""

import os
import sys

from huggingface_hub import InferenceClient


def main(url: str, question: str = "What is the capital of France?") -> None:
    """Prints what follows the text of the question, then what the model answers to it in a conversation."""
    client = InferenceClient(url, token=os.environ.get("ALIDADE_ENDPOINT_KEY"))
    print("Text generation:", client.text_generation(question, max_new_tokens=32))
    print("Chat: ", end="")
    messages = [{"role": "user", "content": question}]
    for chunk in client.chat_completion(messages, max_tokens=32, temperature=0, stream=True):
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
