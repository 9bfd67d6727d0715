"""Every example that is printed or written down is run as it stands."""

import json
import re
import subprocess

import pytest

from e2e.conftest import Stack
from processes import BOUND_S, ROOT, clean_environment

README = (ROOT / "README.md").read_text()
README_URL = "http://127.0.0.1:8000"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL_BLOCKS = [code for language, code in BLOCKS if language == "sh"]
PYTHON_BLOCKS = [code for language, code in BLOCKS if language == "python"]
CALLS = [code for code in SHELL_BLOCKS if README_URL in code]


def run(command: list[str], script: str = "") -> str:
    done = subprocess.run(
        command,
        input=script,
        env=clean_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_printed_examples_work_as_printed(stack: Stack) -> None:
    examples = re.findall(
        r"^# (.+?):\n(.+?)\n\n(?=# |Ctrl-C)", stack.banner, re.MULTILINE | re.DOTALL
    )
    outputs = {title: run(["bash"], script) for title, script in examples}
    assert list(outputs) == [
        "curl, OpenAI route",
        "curl, RunPod route, an image",
        "the openai client",
    ]
    openai_route, runsync, client = outputs.values()
    assert len(json.loads(openai_route)["data"]) == 2
    assert json.loads(runsync)["status"] == "COMPLETED"
    assert "1 384" in client


def test_the_start_up_phases_are_printed(stack: Stack) -> None:
    number = r"\d+\.\d s"
    assert re.search(
        rf"^ready in {number} \(edge {number}, worker with engine {number}\)$",
        stack.banner,
        re.MULTILINE,
    )


@pytest.mark.parametrize("script", CALLS)
def test_the_readmes_shell_examples(stack: Stack, script: str) -> None:
    reply = json.loads(run(["bash"], script.replace(README_URL, stack.url)))
    assert "error" not in reply


@pytest.mark.parametrize("script", PYTHON_BLOCKS)
def test_the_readmes_python_examples(stack: Stack, script: str) -> None:
    assert run([".venv/bin/python", "-"], script.replace(README_URL, stack.url))


def test_the_readme_has_examples_of_both_kinds() -> None:
    assert len(CALLS) >= 2
    assert len(PYTHON_BLOCKS) >= 2


def test_the_readmes_make_commands_are_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for code in SHELL_BLOCKS for name in re.findall(r"^make (\w+)", code, re.MULTILINE)
    }
    assert {"serve", "test"} <= named <= targets
