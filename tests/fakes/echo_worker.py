"""A worker on the real RunPod SDK whose handler does what its input says; run it as a program.

{"echo": X}            answers X
{"fail": text}         raises
{"signal": name}       lets the jobs that await `name` go on
{"await": name}        answers once that has been signalled
{"hang": name}         signals `name`, then never ends; signals `name stopped` when stopped
an OpenAI request      answers an embedding of two numbers for each text; without any: raises
"""

import asyncio
from collections import defaultdict
from typing import Any

import runpod

SIGNALS: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
CONCURRENCY = 8


async def handler(job: dict[str, Any]) -> Any:
    """One job's answer."""
    match job["input"]:
        case {"echo": answer}:
            return answer
        case {"fail": str(text)}:
            raise ValueError(text)
        case {"signal": str(name)}:
            SIGNALS[name].set()
        case {"await": str(name)}:
            await SIGNALS[name].wait()
        case {"hang": str(name)}:
            await hang(name)
        case {"openai_route": "/v1/embeddings", "openai_input": {"input": [*texts]}}:
            return [embeddings(texts)]
    return {"done": True}


async def hang(name: str) -> None:
    """Runs until it is stopped, and lets the start and the stop be known."""
    SIGNALS[name].set()
    try:
        await asyncio.Event().wait()
    finally:
        SIGNALS[f"{name} stopped"].set()


def embeddings(texts: list[str]) -> dict[str, Any]:
    """A made-up OpenAI answer."""
    if not texts:
        raise ValueError("no text")
    data = [
        {"object": "embedding", "index": index, "embedding": [0.5, float(index)]}
        for index, _ in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "model": "echo", "data": data, "usage": usage}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: CONCURRENCY})
