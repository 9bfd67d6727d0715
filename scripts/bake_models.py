"""Download models into a hub cache, for the image. Runs in the engine's environment.

    python scripts/bake_models.py FOLDER

`MODEL_NAMES` and `MODEL_REVISIONS` name them, `HF_TOKEN` opens gated ones. Weights that the engine
would not read, because the same are there as safetensors, are left out.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

# The same weights for other frameworks and runtimes than the image's.
_OTHER_RUNTIMES = ("*.h5", "*.msgpack", "*.ot", "*.tflite", "*.onnx", "*.onnx_data", "openvino/*")


def needless(files: Iterable[str]) -> list[str]:
    """Patterns of files that the engine does not read, given all files of a repository."""
    folders_with_safetensors = {
        str(Path(name).parent) for name in files if name.endswith(".safetensors")
    }
    pickled = [
        name
        for name in files
        if name.endswith((".bin", ".pt")) and str(Path(name).parent) in folders_with_safetensors
    ]
    return [*_OTHER_RUNTIMES, *pickled]


def main() -> int:
    """Download every model; the result is the exit status."""
    # Only here: `needless` is tested without the library.
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415

    folder = sys.argv[1]
    names = _values("MODEL_NAMES")
    revisions = _values("MODEL_REVISIONS") or ["main"] * len(names)
    if len(names) != len(revisions):
        print("MODEL_REVISIONS must have one entry for each model", file=sys.stderr)
        return 2
    for name, revision in zip(names, revisions, strict=True):
        files = HfApi().list_repo_files(name, revision=revision)
        snapshot_download(
            name, revision=revision, cache_dir=folder, ignore_patterns=needless(files)
        )
        print(f"baked {name} at {revision}")
    return 0


def _values(variable: str) -> list[str]:
    return [part.strip() for part in os.environ.get(variable, "").split(";") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
