"""Decides where each model is loaded from, nearest first, and says why.

The order: a folder that `MODEL_NAMES` names → RunPod's cached model → baked into the image → the
network volume → the model hub. All but the first are in the hub's cache layout,

    models--{org}--{name}/refs/{branch}            a file that names a snapshot
    models--{org}--{name}/snapshots/{snapshot}/    the model's files

(huggingface_hub, "Manage the huggingface_hub cache-system"). RunPod may write the first folder's
name in lower case.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from infinity_worker.settings import ModelSettings, Settings

_RUNPOD_CACHE = "runpod-volume/huggingface-cache/hub"
# Where `HF_HOME=/runpod-volume` puts downloads: the setting of RunPod's official worker.
_VOLUME = "runpod-volume"
_VOLUME_HUB = f"{_VOLUME}/hub"
_WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.pt")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class Origin(StrEnum):
    """Where a model comes from, in words for people."""

    FOLDER = "the folder that MODEL_NAMES names"
    RUNPOD_CACHE = "RunPod's cached model"
    IMAGE = "the image"
    VOLUME = "the network volume"
    HUB = "the model hub"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where one model is loaded from.

    Attributes:
        model: as set.
        origin: the place that was chosen.
        folder: the model's files; None where the engine gets them from the hub.
        passed_over: why each place that comes before was not taken.
        needs_hub: other repositories that its code comes from; the hub is asked for them.
    """

    model: ModelSettings
    origin: Origin
    folder: Path | None
    passed_over: tuple[str, ...] = ()
    needs_hub: tuple[str, ...] = ()

    @property
    def engine_source(self) -> str:
        """What the engine is told to load: a folder, or the id for the hub."""
        return str(self.folder) if self.folder else self.model.source

    @property
    def engine_revision(self) -> str:
        """The revision to ask the hub for; empty where there is no pin, or nothing to ask."""
        return "" if self.folder or self.model.revision == "main" else self.model.revision

    @property
    def is_offline(self) -> bool:
        """Whether loading it needs no network."""
        return self.folder is not None and not self.needs_hub


def resolve_models(settings: Settings, root: Path = Path("/")) -> tuple[ModelSource, ...]:
    """Choose a source for every model, in the order of `settings.models`.

    Args:
        settings: the models, their revisions, and where the image keeps models.
        root: what stands for `/` when looking for RunPod's volume.
    """
    return tuple(_resolve(model, settings, root) for model in settings.models)


def hub_environment(
    sources: Sequence[ModelSource], settings: Settings, root: Path = Path("/")
) -> dict[str, str | None]:
    """Variables for the engine by where its models come from; None takes one away.

    Without a need for the network the hub is not asked at all, and the engine gets no token.
    Otherwise downloads go to the network volume, where they outlive the worker, if there is one
    that can be written to and no variable names another place.
    """
    if all(source.is_offline for source in sources):
        return {"HF_HUB_OFFLINE": "1"} | dict.fromkeys(_TOKENS)
    given = settings.environment
    volume = root / _VOLUME
    if given.get("HF_HOME") or given.get("HF_HUB_CACHE") or not os.access(volume, os.W_OK):
        return {}
    return {"HF_HUB_CACHE": str(root / _VOLUME_HUB)}


def tokenizer_folder(source: ModelSource, settings: Settings, root: Path = Path("/")) -> Path:
    """Where a model's files lie once the engine has loaded it.

    Raises:
        FileNotFoundError: there are none on this machine.
    """
    if source.folder:
        return source.folder
    variables = {**settings.environment, **hub_environment([source], settings, root)}
    home = variables.get("HF_HOME") or "~/.cache/huggingface"
    hub = Path(variables.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    for repository in _repositories(hub, source.model.source):
        if snapshot := _snapshot(repository, source.model.revision):
            return snapshot
    raise FileNotFoundError("the model is not in the hub's cache")


def explain(settings: Settings, root: Path = Path("/")) -> Iterator[str]:
    """Lines for people: for each model the choice, why not an earlier one, and the network."""
    sources = resolve_models(settings, root)
    for source in sources:
        pin = "" if source.model.revision == "main" else f" at revision {source.model.revision}"
        yield f"{source.model.name}: from {source.origin}{pin}"
        for reason in source.passed_over:
            yield f"  not from {reason}"
        if source.origin is Origin.HUB:
            yield f"  HF_TOKEN is {'set' if settings.hf_token else 'not set: gated models fail'}"
        for repository in source.needs_hub:
            yield f"  its code comes from {repository}, which the hub is asked for"
    if sources and all(source.is_offline for source in sources):
        yield "no model needs the network: HF_HUB_OFFLINE=1"


def _resolve(model: ModelSettings, settings: Settings, root: Path) -> ModelSource:
    if Path(model.source).is_dir():
        folder = Path(model.source)
        code: tuple[str, ...] = ()
        # What is wrong with such a folder is the engine's to say.
        with contextlib.suppress(OSError, ValueError):
            code = _foreign_code(folder)
        return ModelSource(model, Origin.FOLDER, folder, (), code)
    passed_over: list[str] = []
    for origin, hub in (
        (Origin.RUNPOD_CACHE, root / _RUNPOD_CACHE),
        (Origin.IMAGE, settings.baked_models_dir),
        (Origin.VOLUME, root / _VOLUME_HUB),
    ):
        try:
            folder = _find(hub, model)
            return ModelSource(model, origin, folder, tuple(passed_over), _foreign_code(folder))
        except LookupError as error:
            passed_over.append(f"{origin}: {error.args[0]}")
        except (OSError, ValueError):
            passed_over.append(f"{origin}: its files cannot be read")
    return ModelSource(model, Origin.HUB, None, tuple(passed_over))


def _find(hub: Path, model: ModelSettings) -> Path:
    """The model's snapshot in one cache.

    Raises:
        LookupError: it is not there, or not whole; the message says which.
        OSError: something cannot be read.
    """
    why = "not there"
    for repository in _repositories(hub, model.source):
        snapshot = _snapshot(repository, model.revision)
        missing = _missing(snapshot) if snapshot else None
        if snapshot and not missing:
            return snapshot
        why = f"incomplete, without {missing}" if missing else "not at this revision"
    raise LookupError(why)


def _repositories(hub: Path, source: str) -> list[Path]:
    name = f"models--{source.replace('/', '--')}"
    # A set, in order: the two are one for a name in lower case.
    return [hub / each for each in dict.fromkeys((name, name.lower())) if (hub / each).is_dir()]


def _snapshot(repository: Path, revision: str) -> Path | None:
    snapshots, ref = repository / "snapshots", repository / "refs" / revision
    named = snapshots / (ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision)
    if named.is_dir():
        return named
    present = [each for each in snapshots.glob("*") if each.is_dir()]
    # A cache that was filled by snapshot has no branches; one snapshot is no question.
    return present[0] if revision == "main" and not ref.is_file() and len(present) == 1 else None


def _missing(folder: Path) -> str | None:
    """What a whole model has and this folder lacks, as far as its own files tell."""
    if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
        return "config.json"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(_strings(_json(index).get("weight_map"))))
        return next((shard for shard in shards if not (folder / shard).is_file()), None)
    whole = any(path.is_file() for pattern in _WEIGHTS for path in folder.rglob(pattern))
    return None if whole else "weights"


def _foreign_code(folder: Path) -> tuple[str, ...]:
    """Repositories that the configuration names as `{repository}--{module}.{class}`."""
    path = folder / "config.json"
    if not path.is_file():
        return ()
    named = _strings(_json(path).get("auto_map"))
    return tuple(sorted({text.partition("--")[0] for text in named if "--" in text}))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _json(path: Path) -> dict[str, object]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
