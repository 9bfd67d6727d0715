"""`infinity-worker request` against the running stack."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from e2e.conftest import Stack
from infinity_worker.demo.shapes import Scene, render
from processes import BOUND_S, ROOT, clean_environment

PROGRAM = str(Path(sys.executable).parent / "infinity-worker")


def request(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "request", "--url", url, *arguments],
        env=clean_environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    render(Scene("blue", "star"), np.random.default_rng(1)).save(tmp_path / "picture.png")
    return tmp_path


def test_the_readmes_example(stack: Stack, folder: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"^\.venv/bin/infinity-worker request (.*)$", readme, re.MULTILINE)
    done = request(folder, f"{stack.url}/v2/local/openai/v1", *shlex.split(example))
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert re.fullmatch(r"shapes-clip: 3 embeddings of \d+ numbers, \d+ tokens, 1 images", head)
    red, blue, picture = (float(row.split()[-1]) for row in rows)
    assert picture == 1.0
    assert blue > 0.8
    assert red < 0.5


def test_json_has_what_came_back_and_the_similarities(stack: Stack, folder: Path) -> None:
    done = request(folder, f"{stack.url}/v1", "--json", "--model", "minilm", "a meal", "eating")
    reply = json.loads(done.stdout)
    vectors = np.array([entry["embedding"] for entry in reply["data"]])
    assert reply["model"] == "minilm"
    assert reply["usage"]["prompt_tokens"] > 0
    assert np.allclose(reply["similarities"], vectors @ vectors.T, atol=1e-4)


@pytest.mark.parametrize(
    ("url", "arguments", "words"),
    [
        ("{}/v1", ["a", "--model", "gpt"], "served are: minilm, shapes-clip"),
        ("{}/v1", ["picture.png", "--model", "minilm"], "minilm does not embed images"),
        ("{}/v1", ["missing.png"], "missing.png: No such file"),
        ("{}/nowhere", ["a"], "check --url"),
        ("http://127.0.0.1:9", ["a"], "make serve"),
        ("127.0.0.1:8000", ["a"], "must start with http"),
    ],
)
def test_what_goes_wrong_is_said_in_a_sentence(
    stack: Stack, folder: Path, url: str, arguments: list[str], words: str
) -> None:
    done = request(folder, url.format(stack.url), *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
