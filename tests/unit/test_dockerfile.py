"""The Dockerfile says what it should: no engine is needed to read it."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

import pytest
from dockerfile_parse import DockerfileParser

from infinity_worker.settings import Settings
from processes import ROOT

LINES: list[dict[str, Any]] = [
    line
    for line in DockerfileParser(path=str(ROOT / "Dockerfile")).structure
    if line["instruction"] != "COMMENT"
]
STARTS = [number for number, line in enumerate(LINES) if line["instruction"] == "FROM"]
BUILD, FINAL = LINES[STARTS[0] : STARTS[1]], LINES[STARTS[1] :]


def values(lines: list[dict[str, Any]], instruction: str) -> list[str]:
    return [line["value"] for line in lines if line["instruction"] == instruction]


def copies(lines: list[dict[str, Any]]) -> list[tuple[str | None, list[str], str]]:
    """Of each COPY: the stage it takes from, its sources and its target."""
    found = []
    for value in values(lines, "COPY"):
        options = [word for word in value.split() if word.startswith("--")]
        *sources, target = [word for word in value.split() if not word.startswith("--")]
        stage = next((word.removeprefix("--from=") for word in options), None)
        found.append((stage, sources, target))
    return found


def test_there_are_two_stages_on_the_same_base_for_one_platform() -> None:
    assert len(STARTS) == 2
    assert STARTS[0] == 0
    bases = [value.split() for value in values(LINES, "FROM")]
    assert [base[0] for base in bases] == ["--platform=linux/amd64"] * 2
    # The environments hold the absolute path of the base's Python.
    assert bases[0][1] == bases[1][1]
    python = (ROOT / ".python-version").read_text().strip()
    assert bases[0][1].startswith(f"python:{python}-slim-")
    for lock in ("uv.lock", "engine/uv.lock"):
        assert python in tomllib.loads((ROOT / lock).read_text())["requires-python"]


def test_every_copied_file_exists_and_is_sent_to_the_builder() -> None:
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert ignored[0] == "*"
    sent = [line[1:] for line in ignored if line.startswith("!")]
    for stage, sources, _ in copies(BUILD):
        assert stage is None
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source in sent, source
    assert sorted(sent) == sorted(name for _, names, _ in copies(BUILD) for name in names)


def test_the_last_stage_takes_only_what_the_first_has_built() -> None:
    built = {target for _, _, target in copies(FINAL)}
    assert built == {"/app/engine", "/app/models", "/app/.venv", "/app/src"}
    assert all(stage == "build" and [to] == what for stage, what, to in copies(FINAL))
    assert values(FINAL, "RUN") == ["useradd --create-home --uid 10001 worker"]


def test_it_is_built_by_the_script_that_a_test_runs_engine_first() -> None:
    calls = [re.search(r"(\S+\.sh) /app (\w+)$", value) for value in values(BUILD, "RUN")]
    assert [call and call.groups() for call in calls] == [
        ("/checkout/scripts/build-image-layout.sh", part) for part in ("engine", "models", "worker")
    ]
    assert all((ROOT / "scripts" / "build-image-layout.sh").stat().st_mode & 0o111 for _ in calls)
    (variables,) = values(BUILD, "ENV")
    assert "ENGINE_TORCH=cuda" in variables.split()
    assert "UV_COMPILE_BYTECODE" not in variables


def test_it_runs_the_worker_as_nobody_special_from_its_own_environment() -> None:
    assert json.loads(values(FINAL, "CMD")[0]) == ["python", "-u", "-m", "infinity_worker"]
    assert values(FINAL, "USER") == ["${RUN_AS}"]
    assert "RUN_AS=worker" in values(FINAL, "ARG")
    assert not values(FINAL, "ENTRYPOINT")
    (variables,) = values(FINAL, "ENV")
    assert "PATH=/app/.venv/bin:${PATH}" in variables.split()


def test_the_models_it_bakes_are_those_it_serves_and_where_it_looks() -> None:
    (text,) = values(FINAL, "ENV")
    variables = dict(word.split("=", 1) for word in text.split())
    for name in ("MODEL_NAMES", "MODEL_REVISIONS"):
        assert f'{name}=""' in values(BUILD, "ARG")
        assert f'{name}=""' in values(FINAL, "ARG")
        assert variables[name] == f"${{{name}}}"
    (target,) = [to for _, _, to in copies(FINAL) if to.endswith("models")]
    assert (
        str(
            Settings.from_env(
                variables | {"MODEL_NAMES": "", "MODEL_REVISIONS": ""}
            ).baked_models_dir
        )
        == target
    )


def test_no_secret_is_an_argument_or_a_variable() -> None:
    for value in values(LINES, "ARG") + values(LINES, "ENV"):
        assert "TOKEN" not in value


@pytest.mark.parametrize("path", ["src/infinity_worker/__pycache__/x.pyc", "src/x.pyc"])
def test_bytecode_of_the_builders_machine_is_not_sent(path: str) -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().split() if "**" in line]
    parts = [path, *map(str, PurePosixPath(path).parents)]
    assert any(fnmatch(part, pattern) for part in parts for pattern in patterns)
