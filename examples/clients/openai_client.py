"""Asks a served model with OpenAI's client: openai_client.py URL [QUESTION]. Needs the package openai."""

import os
import sys

from openai import OpenAI


def main(url: str, question: str = "What is the capital of France?") -> None:
    """Prints the answer as it is written, and what it took."""
    with OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key=os.environ.get("ALIDADE_ENDPOINT_KEY", "none")) as client:
        model = client.models.list().data[0].id
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=32,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
            if chunk.usage is not None:
                print(f"\n{model}: {chunk.usage.prompt_tokens} tokens read, {chunk.usage.completion_tokens} written")


if __name__ == "__main__":
    main(*sys.argv[1:])
