"""Asks a served model with text-generation-inference's own client: text_generation_client.py URL [TEXT].

It has the model go on with a text as it stands: turns of a conversation are to be written out as the model has learnt
them. Needs the package text-generation, which wants an older huggingface-hub than Alidade does: give it an environment
of its own.
"""

import os
import sys

from text_generation import Client


def main(url: str, text: str = "What is the capital of France?") -> None:
    """Prints an answer at once with what it took, and again as it is written."""
    key = os.environ.get("ALIDADE_ENDPOINT_KEY")
    client = Client(url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60)
    whole = client.generate(text, max_new_tokens=32)
    print(whole.generated_text)
    print(f"{whole.details.generated_tokens} tokens, ended by {whole.details.finish_reason.value}")
    for event in client.generate_stream(text, max_new_tokens=32):
        print(event.token.text, end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
