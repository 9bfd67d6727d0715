"""Baking models into the image: the engine's own hub library, and a fake hub."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from fakes.model_hub import COMMIT, ModelHub
from infinity_worker.model_sources import Origin, explain, resolve_models
from infinity_worker.settings import Settings
from processes import BOUND_S, ROOT, clean_environment

TOKEN = "hf_notarealtoken"  # noqa: S105  # made up
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same weights",
    "onnx/model.onnx": b"the same weights again",
    "1_Pooling/config.json": b"{}",
}
OLD = {"config.json": b"{}", "pytorch_model.bin": b"weights"}


async def bake(hub: ModelHub, folder: Path, names: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [ROOT / "engine/.venv/bin/python", ROOT / "scripts/bake_models.py", folder],
        env=clean_environment(MODEL_NAMES=names, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


async def test_baked_models_are_found_and_need_no_network(tmp_path: Path) -> None:
    async with ModelHub({"org/New": FILES, "org/old": OLD}) as hub:
        ended = await bake(hub, tmp_path, "org/New;org/old")
        assert ended.returncode == 0, ended.stderr
        assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in ended.stdout + ended.stderr
    settings = Settings.from_env(
        {"MODEL_NAMES": "org/New;org/old", "BAKED_MODELS_DIR": str(tmp_path)}
    )
    new, old = resolve_models(settings, tmp_path)
    assert (new.origin, old.origin) == (Origin.IMAGE, Origin.IMAGE)
    assert new.folder is not None
    assert new.folder.name == COMMIT
    baked = {str(path.relative_to(new.folder)) for path in new.folder.rglob("*.*")}
    assert baked == FILES.keys() - {"pytorch_model.bin", "onnx/model.onnx"}
    assert old.folder is not None
    assert (old.folder / "pytorch_model.bin").read_bytes() == b"weights"
    assert "no model needs the network: HF_HUB_OFFLINE=1" in explain(settings, tmp_path)


@pytest.mark.parametrize("names", ["org/nobody", "org/New;org/nobody"])
async def test_a_model_that_cannot_be_baked_fails_the_build(tmp_path: Path, names: str) -> None:
    async with ModelHub({"org/New": FILES}) as hub:
        ended = await bake(hub, tmp_path, names)
    assert ended.returncode != 0
    assert TOKEN not in ended.stdout + ended.stderr
