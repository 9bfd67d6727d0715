"""The benchmark notices wrong answers, and still runs."""

import asyncio
import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).parents[2]
SMOKE_S = 100


@pytest.fixture(autouse=True)
def _bench_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


def answer(texts: int = 3) -> dict[str, Any]:
    from bench.vectors import encoded, kinds_of
    from bench.workload import Workload

    entries = [
        {"index": index, "embedding": encoded(384)[kind]}
        for index, kind in enumerate(kinds_of(Workload(texts).inputs[0]))
    ]
    return {"data": entries}


def test_the_engines_own_answer_is_right() -> None:
    from bench.workload import Workload

    posted = orjson.dumps({"output": [answer()]})
    Workload(3).check_quickly(posted[:200], len(posted))
    Workload(3).check_fully(0, posted)


@pytest.mark.parametrize("spoiled", ["order", "bits", "count", "index"])
def test_a_wrong_answer_is_refused(spoiled: str) -> None:
    from bench.workload import Workload, WrongAnswerError

    right = answer()
    data = right["data"]
    match spoiled:
        case "order":
            data[0]["embedding"], data[1]["embedding"] = data[1]["embedding"], data[0]["embedding"]
        case "bits":
            row = bytearray(base64.b64decode(data[2]["embedding"]))
            row[0] ^= 1
            data[2]["embedding"] = base64.b64encode(row).decode()
        case "count":
            data.pop()
        case "index":
            data[1]["index"] = 0
    with pytest.raises(WrongAnswerError):
        Workload(3).check_fully(0, orjson.dumps({"output": [right]}))


@pytest.mark.parametrize(
    "posted", [b"", b'{"error":"x"}', b'{"output":[{"error":{"message":"no"}}]}']
)
def test_an_error_is_refused_at_a_glance(posted: bytes) -> None:
    from bench.workload import Workload, WrongAnswerError

    with pytest.raises(WrongAnswerError):
        Workload(1).check_quickly(posted, len(posted))


async def test_a_result_reported_twice_ends_the_run() -> None:
    from bench.closed_loop import ClosedLoop, Plan
    from bench.workload import Workload, WrongAnswerError

    loop = ClosedLoop(Workload(1), Plan(1), lambda: None)
    posted = orjson.dumps({"output": [answer(1)]})

    def submit(job_id: str, _number: int) -> None:
        for _ in range(2):
            asyncio.get_running_loop().call_soon(loop.on_result, job_id, [posted])

    with pytest.raises(WrongAnswerError, match="twice"):
        await loop.run(submit)


def test_it_measures_the_worker(tmp_path: Path) -> None:
    arguments = ["--quick", "--variants", "ours", "--only", "1 text*, 32 clients"]
    subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--out", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=SMOKE_S,
    )
    cells = orjson.loads((tmp_path / "results.json").read_bytes())["standin"]
    assert [cell["median"]["ours"]["completed"] >= 32 for cell in cells] == [True, True]
    assert "| 1 text × 384 float, 32 clients | ours |" in (tmp_path / "performance.md").read_text()


def test_costs_are_found_again_from_what_they_make() -> None:
    from bench.costs import fit

    rows = [
        (items, items * tokens, 3.0 + 0.5 * items + 0.02 * items * tokens)
        for items, tokens in [(1.0, 8.0), (1.0, 100.0), (8.0, 30.0), (32.0, 8.0), (32.0, 60.0)]
    ]
    costs = fit(rows)
    assert costs["request_ms"] == pytest.approx(3.0)
    assert costs["item_ms"] == pytest.approx(0.5)
    assert costs["token_ms"] == pytest.approx(0.02)
    assert costs["largest relative error"] < 1e-6
