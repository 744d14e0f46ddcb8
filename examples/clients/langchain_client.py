"""Asks a served model through LangChain: langchain_client.py URL [QUESTION]. Needs the package langchain-openai."""

import os
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI


def main(url: str, question: str = "What is the capital of France?") -> None:
    """Prints the answers of a chain: a template, the model, its text."""
    model = ChatOpenAI(
        base_url=f"{url.rstrip('/')}/v1",
        api_key=os.environ.get("ALIDADE_ENDPOINT_KEY", "none"),
        model="tgi",  # whatever model is served; an adapter by its name
        max_tokens=32,
        temperature=0,
    )
    prompt = ChatPromptTemplate.from_messages([("system", "Answer in {language}."), ("user", "{question}")])
    chain = prompt | model | StrOutputParser()
    for part in chain.stream({"language": "English", "question": question}):
        print(part, end="", flush=True)
    print()
    # Several at once; the server puts them into one batch.
    asked = [{"language": language, "question": question} for language in ("Chinese", "French")]
    for answer in chain.batch(asked):
        print(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
