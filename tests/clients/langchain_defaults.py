"""LangChain with its default settings: prints what it raised, and what the endpoint had answered.

Its argument is the base URL. The vocabulary that it would download is the copy that LlamaIndex
carries.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
from langchain_openai import OpenAIEmbeddings
from openai import BadRequestError

llama_index = find_spec("llama_index.core")  # found, not imported: that would take seconds
assert llama_index
assert llama_index.origin
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(llama_index.origin).parent / "_static/tiktoken_cache")

bodies: list[object] = []


def keep(response: httpx.Response) -> None:
    bodies.append(json.loads(response.read()))


with httpx.Client(event_hooks={"response": [keep]}) as http_client:
    embeddings = OpenAIEmbeddings(
        model="minilm", base_url=sys.argv[1], api_key="local", http_client=http_client
    )
    try:
        embeddings.embed_documents(["hello world"])
    except (ValueError, BadRequestError) as error:
        print(json.dumps({"error": str(error), "bodies": bodies}))  # noqa: T201
