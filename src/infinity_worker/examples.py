"""What `infinity-worker serve` prints once it is ready: times, and examples to paste."""

import base64
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from infinity_worker.demo.shapes import Scene, render
from infinity_worker.infinity_client import Model

_PICTURE_SIZE = 48


def banner(
    url: str, phases: Mapping[str, float], models: Sequence[Model], *, keyed: bool = False
) -> str:
    """Say how long each phase of the start took (seconds), what is served, and how to call it.

    Args:
        url: where the local edge listens.
        phases: the name of each phase, and how long it took.
        models: what the engine serves.
        keyed: whether callers need the API key; the examples take it from `EDGE_API_KEY`.
    """
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
    text = next((model.name for model in models if model.takes("text")), None)
    image = next((model.name for model in models if model.takes("image")), None)
    blocks = [
        f"ready in {sum(phases.values()):.1f} s ({times})",
        f"models: {', '.join(model.name for model in models)}",
        f"RunPod API: {url}/v2/local\nOpenAI API: {url}/v2/local/openai/v1 (and {url}/v1)",
    ]
    if text:
        blocks.append("# curl, OpenAI route:\n" + openai_curl(url, text, keyed=keyed))
    if image:
        blocks.append("# curl, RunPod route, an image:\n" + runsync_curl(url, image, keyed=keyed))
    if text:
        blocks.append("# the openai client:\n" + openai_python(url, text, keyed=keyed))
    return "\n" + "\n\n".join(blocks) + "\n\nCtrl-C ends it.\n"


def http_banner(url: str, seconds: float, *, keyed: bool = False) -> str:
    """Say how long the start of a load-balancing endpoint took, and how to call it."""
    body = {"input": ["a red circle", "the cat sat on the mat"]}
    blocks = [
        f"ready in {seconds:.1f} s",
        f"OpenAI API: {url}/v1",
        "# curl:\n" + _curl(f"{url}/v1/embeddings", body, keyed=keyed),
    ]
    return "\n" + "\n\n".join(blocks) + "\n\nCtrl-C ends it.\n"


def openai_curl(url: str, model: str, *, keyed: bool = False) -> str:
    """A curl command that embeds two texts over the OpenAI route."""
    body = {"model": model, "input": ["a red circle", "the cat sat on the mat"]}
    return _curl(f"{url}/v2/local/openai/v1/embeddings", body, keyed=keyed)


def runsync_curl(url: str, model: str, *, keyed: bool = False) -> str:
    """A curl command that embeds a picture over RunPod's own route."""
    body = {"input": {"model": model, "image": picture()}}
    return _curl(f"{url}/v2/local/runsync", body, keyed=keyed)


def openai_python(url: str, model: str, *, keyed: bool = False) -> str:
    """A shell command that runs the official `openai` client."""
    key = 'os.environ["EDGE_API_KEY"]' if keyed else '"local"'
    imports = "import os\n\n" if keyed else ""
    return f"""{_python()} - <<'EOF'
{imports}from openai import OpenAI

client = OpenAI(base_url="{url}/v2/local/openai/v1", api_key={key})
reply = client.embeddings.create(model="{model}", input=["hello world", "good morning"])
for item in reply.data:
    print(item.index, len(item.embedding), item.embedding[:3])
EOF"""


def picture() -> str:
    """A small picture of a red circle as a data URI, short enough to paste."""
    rendered = render(Scene("red", "circle"), np.random.default_rng(7), size=_PICTURE_SIZE)
    buffer = io.BytesIO()
    rendered.quantize(8).convert("RGB").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _curl(url: str, body: object, *, keyed: bool) -> str:
    key = ' -H "Authorization: Bearer $EDGE_API_KEY"' if keyed else ""
    return f"curl -s {url}{key} -H 'Content-Type: application/json' \\\n  -d '{json.dumps(body)}'"


def _python() -> str:
    """The interpreter of the worker's environment, as short as the current folder allows."""
    here = Path.cwd()
    python = Path(sys.executable)
    return os.path.relpath(python, here) if python.is_relative_to(here) else str(python)
