"""Train the demo model: a toy CLIP that tells coloured shapes apart.

Runs in the engine's environment (torch, transformers), where the infinity_worker package is not
installed:

    engine/.venv/bin/python src/infinity_worker/demo/train_shapes_clip.py [--out DIR]

Everything is made here: pictures are drawn while training, the tokenizer is CLIP's byte-level one
with merges learnt from the captions, and no pretrained weight is used. The same seed gives the
same model on the same machine.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizerFast,
)
from transformers.models.clip.tokenization_clip import bytes_to_unicode

if TYPE_CHECKING:
    from infinity_worker.demo.shapes import Scene, all_captions, all_scenes, caption, render
else:
    # Run as a script, this file's own folder is on the path and the package is not.
    from shapes import Scene, all_captions, all_scenes, caption, render

SEED = 20240229
HELD_OUT_SEED = SEED + 1
HELD_OUT_ROUNDS = 10
THREADS = 2

STEPS = 1600
PEAK_LEARNING_RATE = 2e-3
WARM_UP = 0.1  # the part of the steps in which the learning rate rises
WEIGHT_DECAY = 0.05
LARGEST_GRADIENT = 1.0
LARGEST_LOGIT_SCALE = 4.6  # its logarithm: CLIP, too, stops at 100
LOG_EVERY = 100

PIXELS = 64  # width and height to which the model's processor brings every picture
# Pictures arrive in all sizes: shrunk and enlarged ones are softer than those drawn to measure.
DRAWN_SIZES = (48, PIXELS, 96, 128)
EMBEDDING_SIZE = 64
# transformers gives every configuration a max_length of 20, and the engine cuts texts to that:
# more positions would never be used.
MAX_TOKENS = 20

END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
LEARNT_PIECES = 300

# Ways to word a caption; the bare one most often, as it is the one that is asked for most.
TEMPLATES = ("{}", "{}", "{}", "a photo of {}", "a picture of {}", "a drawing of {}")

DEFAULT_OUT = Path(__file__).parent / "shapes_clip"

logger = logging.getLogger("train_shapes_clip")


def learn_pieces(texts: list[str]) -> Tokenizer:
    """Learn the byte-pair merges that write each word of these texts as few tokens."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNT_PIECES, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def build_vocabulary(learnt: Tokenizer) -> dict[str, int]:
    """Number all pieces as CLIP does: every byte, every byte that ends a word, then merges."""
    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(letter + END_OF_WORD for letter in letters)]
    known = set(pieces)
    numbers = learnt.get_vocab()
    pieces += [piece for piece in sorted(numbers, key=numbers.__getitem__) if piece not in known]
    return {piece: number for number, piece in enumerate([*pieces, START, END])}


def build_tokenizer() -> CLIPTokenizerFast:
    """Build a CLIP tokenizer with merges for our captions; all bytes being in it, any text fits."""
    learnt = learn_pieces([template.format(t) for template in TEMPLATES for t in all_captions()])
    with tempfile.TemporaryDirectory() as folder:
        vocabulary_file, merges_file = learnt.model.save(folder)
        Path(vocabulary_file).write_text(json.dumps(build_vocabulary(learnt)), encoding="utf-8")
        return CLIPTokenizerFast(vocabulary_file, merges_file, model_max_length=MAX_TOKENS)


def build_processor() -> CLIPProcessor:
    """Build the processor that the engine loads beside the model.

    Pictures are squeezed to a square instead of cropped: nothing at the rim gets lost, and a very
    long and thin picture needs no large intermediate one.
    """
    images = CLIPImageProcessor(
        size={"height": PIXELS, "width": PIXELS},
        do_center_crop=False,
        crop_size={"height": PIXELS, "width": PIXELS},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return CLIPProcessor(images, build_tokenizer())


def build_model(tokenizer: CLIPTokenizerFast) -> CLIPModel:
    """Build the untrained model: about a quarter of a million weights."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "projection_dim": EMBEDDING_SIZE,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "image_size": PIXELS,
        "patch_size": 8,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": EMBEDDING_SIZE,
    }
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING_SIZE)
    )


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw a scene in some size and bring it to PIXELS x PIXELS as the processor does."""
    picture = render(scene, rng, int(rng.choice(DRAWN_SIZES)))
    return picture.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)


def draw_pixels(scenes: list[Scene], rng: np.random.Generator) -> torch.Tensor:
    """Draw scenes as the processor would hand them over: (scenes, 3, PIXELS, PIXELS), -1..1."""
    pixels = np.stack([np.asarray(draw(scene, rng)) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def word(scenes: list[Scene], rng: np.random.Generator) -> list[str]:
    """Caption each scene in a randomly chosen wording."""
    chosen = rng.integers(len(TEMPLATES), size=len(scenes))
    return [TEMPLATES[i].format(caption(scene)) for i, scene in zip(chosen, scenes, strict=True)]


def train(model: CLIPModel, tokenizer: CLIPTokenizerFast, rng: np.random.Generator) -> None:
    """Train contrastively; each batch holds every scene once, so no two captions in it are alike.

    Args:
        model: is changed in place.
        tokenizer: the model's.
        rng: where the pictures and wordings come from.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=STEPS, pct_start=WARM_UP
    )
    scenes = all_scenes()
    model.train()
    for step in range(1, STEPS + 1):
        texts = tokenizer(word(scenes, rng), padding=True, return_tensors="pt")
        loss = model(**texts, pixel_values=draw_pixels(scenes, rng), return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
        if step % LOG_EVERY == 0:
            logger.info("step %d of %d: loss %.3f", step, STEPS, loss.item())
    model.eval()


def accuracy(
    model: CLIPModel, processor: CLIPProcessor, counts: tuple[int, ...], rng: np.random.Generator
) -> float:
    """Measure how often the right caption is the nearest one, on newly drawn pictures.

    Args:
        model: the trained model.
        processor: the one saved with it, so that pictures take the way they take in the engine.
        counts: the scenes, and the captions to choose from, are those with these counts.
        rng: where the pictures come from.

    Returns:
        The part, 0..1, of the pictures whose caption came first of all captions.
    """
    scenes = all_scenes(counts)
    texts = processor(text=all_captions(counts), padding=True, return_tensors="pt")
    right = 0
    for _ in range(HELD_OUT_ROUNDS):
        images = processor(images=[render(scene, rng) for scene in scenes], return_tensors="pt")
        with torch.no_grad():
            best = model(**texts, **images).logits_per_image.argmax(dim=1)
        right += int((best == torch.arange(len(scenes))).sum())
    return right / (HELD_OUT_ROUNDS * len(scenes))


def report(model: CLIPModel, processor: CLIPProcessor) -> None:
    """Print the accuracy on pictures that training has not seen."""
    for counts in ((1,), (1, 2, 3)):
        rng = np.random.default_rng(HELD_OUT_SEED)
        share = accuracy(model, processor, counts, rng)
        number = len(all_captions(counts))
        logger.info(
            "held out, counts %s, best of %d captions: %.2f %%", counts, number, 100 * share
        )


def save(model: CLIPModel, processor: CLIPProcessor, out: Path) -> None:
    """Write the folder that the engine loads."""
    model.save_pretrained(out)
    processor.save_pretrained(out)
    for file in out.iterdir():
        # safetensors lets the owner alone read its file; in a container that may be another user.
        file.chmod(0o644)


def main() -> None:
    """Train, measure and save the model."""
    parser = argparse.ArgumentParser(description="Train the demo model shapes-clip.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the model's folder")
    out: Path = parser.parse_args().out
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)

    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    logger.info("%d weights, %d tokens", model.num_parameters(), len(processor.tokenizer))
    started = time.monotonic()
    train(model, processor.tokenizer, np.random.default_rng(SEED))
    logger.info("trained in %.0f s", time.monotonic() - started)
    report(model, processor)
    save(model, processor, out)


if __name__ == "__main__":
    main()
