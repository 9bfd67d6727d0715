"""Where models are loaded from: tables over folders made for each case."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from infinity_worker.engine import engine_command, engine_environment
from infinity_worker.model_sources import (
    Origin,
    explain,
    hub_environment,
    resolve_models,
    tokenizer_folder,
)
from infinity_worker.settings import Settings

RUNPOD = "runpod-volume/huggingface-cache/hub/models--BAAI--bge-m3"
RUNPOD_LOWER = "runpod-volume/huggingface-cache/hub/models--baai--bge-m3"
BAKED = "models/models--BAAI--bge-m3"
VOLUME = "runpod-volume/hub/models--BAAI--bge-m3"
WHOLE = {"config.json": "{}", "model.safetensors": ""}


def settings(root: Path, **variables: str) -> Settings:
    basics = {"MODEL_NAMES": "BAAI/bge-m3", "BAKED_MODELS_DIR": str(root / "models")}
    return Settings.from_env(basics | {"HF_HOME": str(root / "home")} | variables)


def put(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def cache(
    root: Path,
    repository: str,
    *,
    snapshot: str = "abc",
    ref: str | None = "main",
    files: Mapping[str, str] = WHOLE,
) -> Path:
    folder = root / repository / "snapshots" / snapshot
    put(folder, files)
    if ref:
        put(root / repository / "refs", {ref: snapshot + "\n"})
    return folder


@pytest.mark.parametrize(
    ("present", "chosen", "origin"),
    [
        ([], None, Origin.HUB),
        ([VOLUME], VOLUME, Origin.VOLUME),
        ([VOLUME, BAKED], BAKED, Origin.IMAGE),
        ([VOLUME, BAKED, RUNPOD_LOWER], RUNPOD_LOWER, Origin.RUNPOD_CACHE),
        ([VOLUME, BAKED, RUNPOD], RUNPOD, Origin.RUNPOD_CACHE),
        ([RUNPOD, RUNPOD_LOWER], RUNPOD, Origin.RUNPOD_CACHE),
    ],
)
def test_the_nearest_place_wins(
    tmp_path: Path, present: list[str], chosen: str | None, origin: Origin
) -> None:
    for repository in present:
        cache(tmp_path, repository)
    (source,) = resolve_models(settings(tmp_path), tmp_path)
    assert source.origin is origin
    assert source.folder == (tmp_path / chosen / "snapshots" / "abc" if chosen else None)
    assert source.is_offline == bool(chosen)
    earlier = list(Origin)[1 : list(Origin).index(origin)]
    assert [reason.partition(":")[0] for reason in source.passed_over] == earlier


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.safetensors": ""}, "incomplete, without config.json"),
        ({"config.json": "{}"}, "incomplete, without weights"),
        (
            {
                "config.json": "{}",
                "a.safetensors": "",
                "model.safetensors.index.json": json.dumps(
                    {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
                ),
            },
            "incomplete, without b.safetensors",
        ),
        (WHOLE | {"config.json": "{"}, "its files cannot be read"),
        (WHOLE | {"model.safetensors.index.json": "{"}, "its files cannot be read"),
    ],
)
def test_a_broken_copy_is_passed_over_for_the_next(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    cache(tmp_path, RUNPOD, files=files)
    cache(tmp_path, VOLUME)
    (source,) = resolve_models(settings(tmp_path), tmp_path)
    assert source.origin is Origin.VOLUME
    assert source.passed_over[0] == f"RunPod's cached model: {reason}"


@pytest.mark.parametrize(
    "files",
    [
        {"modules.json": "[]", "0_Transformer/model.safetensors": ""},
        {"config.json": "{}", "onnx/model.onnx": ""},
        {"config.json": "{}", "pytorch_model.bin": ""},
    ],
)
def test_a_whole_model_may_have_any_layout(tmp_path: Path, files: dict[str, str]) -> None:
    cache(tmp_path, RUNPOD, files=files)
    assert resolve_models(settings(tmp_path), tmp_path)[0].origin is Origin.RUNPOD_CACHE


@pytest.mark.parametrize(
    ("revision", "snapshot", "ref", "found"),
    [
        ("main", "abc", "main", True),
        ("main", "abc", None, True),  # one snapshot and no branch
        ("main", "abc", "v1", True),
        ("v1", "abc", "v1", True),
        ("abc", "abc", "main", True),
        ("v2", "abc", "main", False),
        ("abd", "abc", None, False),
    ],
)
def test_a_revision_is_a_branch_a_tag_or_a_snapshot(
    tmp_path: Path, revision: str, snapshot: str, ref: str | None, *, found: bool
) -> None:
    cache(tmp_path, RUNPOD, snapshot=snapshot, ref=ref)
    (source,) = resolve_models(settings(tmp_path, MODEL_REVISIONS=revision), tmp_path)
    assert (source.folder is not None) == found
    assert source.engine_revision == ("" if found else revision)
    if not found:
        assert source.passed_over[0] == "RunPod's cached model: not at this revision"


def test_main_is_where_the_branch_points_not_any_snapshot(tmp_path: Path) -> None:
    cache(tmp_path, RUNPOD, snapshot="old", ref=None)
    new = cache(tmp_path, RUNPOD, snapshot="new")
    assert resolve_models(settings(tmp_path), tmp_path)[0].folder == new


def test_two_snapshots_without_a_branch_are_no_answer(tmp_path: Path) -> None:
    cache(tmp_path, RUNPOD, snapshot="one", ref=None)
    cache(tmp_path, RUNPOD, snapshot="two", ref=None)
    assert resolve_models(settings(tmp_path), tmp_path)[0].origin is Origin.HUB


def test_code_of_another_repository_keeps_the_hub_within_reach(tmp_path: Path) -> None:
    names = {"AutoModel": "jinaai/clip-code--modeling.Model", "AutoConfig": ["own.Config", None]}
    cache(tmp_path, RUNPOD, files=WHOLE | {"config.json": json.dumps({"auto_map": names})})
    (source,) = resolve_models(settings(tmp_path), tmp_path)
    assert source.folder is not None
    assert source.needs_hub == ("jinaai/clip-code",)
    assert "HF_HUB_OFFLINE" not in hub_environment([source], settings(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("variables", "volume", "expected"),
    [
        ({"HF_HOME": ""}, True, True),
        ({"HF_HOME": ""}, False, False),
        ({"HF_HOME": "/elsewhere"}, True, False),
        ({"HF_HOME": "", "HF_HUB_CACHE": "/elsewhere"}, True, False),
    ],
)
def test_downloads_go_to_the_network_volume_if_nothing_says_otherwise(
    tmp_path: Path, variables: dict[str, str], *, volume: bool, expected: bool
) -> None:
    if volume:
        (tmp_path / "runpod-volume").mkdir()
    chosen = settings(tmp_path, **variables)
    sources = resolve_models(chosen, tmp_path)
    hub = str(tmp_path / "runpod-volume/hub")
    assert hub_environment(sources, chosen, tmp_path) == ({"HF_HUB_CACHE": hub} if expected else {})
    if expected:
        downloaded = cache(tmp_path, VOLUME)
        assert tokenizer_folder(sources[0], chosen, tmp_path) == downloaded


def test_a_token_is_the_engines_only_where_something_is_downloaded(tmp_path: Path) -> None:
    token = "hf_notarealtoken"  # noqa: S105  # made up
    chosen = settings(tmp_path, HF_TOKEN=token, MODEL_REVISIONS="v1")
    assert engine_environment(chosen)["HF_TOKEN"] == token
    assert token not in " ".join(engine_command(chosen, 1))
    assert token not in "\n".join(explain(chosen, tmp_path))
    cache(tmp_path, BAKED, ref="v1")
    offline = engine_environment(chosen)
    assert token not in offline.values()
    assert offline["HF_HUB_OFFLINE"] == "1"


def test_the_engine_is_told_the_folder_and_the_served_name(tmp_path: Path) -> None:
    folder = cache(tmp_path, BAKED)
    command = engine_command(settings(tmp_path), 1)
    assert command[command.index("--model-id") + 1] == str(folder)
    assert command[command.index("--served-model-name") + 1] == "BAAI/bge-m3"


def test_the_choice_is_explained(tmp_path: Path) -> None:
    own = tmp_path / "own"
    put(own, {"config.json": "not JSON"})
    cache(tmp_path, RUNPOD_LOWER, ref="v1")
    names = f"{own};BAAI/bge-m3"
    chosen = settings(tmp_path, MODEL_NAMES=names, SERVED_MODEL_NAMES="own;bge")
    assert list(explain(chosen, tmp_path))[-1] == "no model needs the network: HF_HUB_OFFLINE=1"
    pinned = settings(
        tmp_path, MODEL_NAMES=names, SERVED_MODEL_NAMES="own;bge", MODEL_REVISIONS="main;v2"
    )
    assert list(explain(pinned, tmp_path)) == [
        "own: from the folder that MODEL_NAMES names",
        "bge: from the model hub at revision v2",
        "  not from RunPod's cached model: not at this revision",
        "  not from the image: not there",
        "  not from the network volume: not there",
        "  HF_TOKEN is not set: gated models fail",
    ]
