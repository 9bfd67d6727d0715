"""Train the demo's text toys: a reranker and a classifier for texts about coloured shapes.

Runs in the engine's environment (torch, transformers), where the infinity_worker package is not
installed:

    PYTHONPATH=src engine/.venv/bin/python -m infinity_worker.demo.train_shapes_text [--out DIR]

`shapes-rank` scores a query and a document by the part of colour, shape and count that they share;
`shapes-class` names the colour in a text. Both are BERTs of two layers. Everything is made here:
the texts are drawn while training, the vocabulary is written by hand, and no pretrained weight is
used. The same seed gives the same models on the same machine.
"""

import argparse
import logging
import string
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from infinity_worker.demo.shapes import Scene, all_captions, all_scenes
from infinity_worker.demo.wording import (
    LABELS,
    Pair,
    draw_captions,
    draw_labelled,
    draw_pair,
    draw_wording,
    is_held_out,
    shared,
    training_scenes,
    words,
)

SEED = 20240301
HELD_OUT_SEED = SEED + 1
HELD_OUT_ROUNDS = 10
THREADS = 1  # the layers are too small for more to pay

CAPTION_STEPS = 500
RANK_STEPS = 1_200
CLASS_STEPS = 400
BATCH_SIZE = 96
POOLED_BATCHES = 8  # drawn together and sorted by length
PEAK_LEARNING_RATE = 3e-3
WARM_UP = 0.1  # the part of the steps in which the learning rate rises
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0
LOG_EVERY = 100

HIDDEN_SIZE = 64
# The usual 0.02 suits wide layers: in these it keeps attention even for thousands of steps.
INITIAL_RANGE = 0.12
MAX_TOKENS = 64  # of a text, or of a query and a document together, special ones included

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

DEFAULT_OUT = Path(__file__).parent

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]
"""A tokenizer's output for some texts, and what the model should make of each."""

Draw = Callable[[Sequence[Scene], np.random.Generator], Pair]

T = TypeVar("T")

logger = logging.getLogger("train_shapes_text")


def build_tokenizer() -> BertTokenizerFast:
    """Build BERT's tokenizer with the words of our texts, each ASCII character, and no endings.

    So any other word is one unknown token: to models this small, spelt-out ones look like "red" if
    they begin as it does.
    """
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [*SPECIALS, *characters, *words()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.txt"
        file.write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
        return BertTokenizerFast(str(file), model_max_length=MAX_TOKENS)


def build_model(
    tokenizer: BertTokenizerFast, labels: Sequence[str]
) -> BertForSequenceClassification:
    """Build an untrained model: about ninety thousand weights.

    Args:
        tokenizer: the model's.
        labels: the classes; a single one makes it a reranker in the engine's eyes.
    """
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN_SIZE,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * HIDDEN_SIZE,
            max_position_embeddings=MAX_TOKENS,
            initializer_range=INITIAL_RANGE,
            # No text is drawn twice: there is nothing to overfit.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
    )


def tokenize_pairs(
    tokenizer: BertTokenizerFast, queries: Sequence[str], documents: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Tokenize queries with their documents as the engine does."""
    return dict(
        tokenizer(
            list(queries),
            list(documents),
            padding=True,
            truncation="longest_first",
            return_tensors="pt",
        )
    )


def tokenize(tokenizer: BertTokenizerFast, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tokenize single texts as the engine does."""
    return dict(tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt"))


def batches(draw: Callable[[], T], length: Callable[[T], int]) -> Iterator[list[T]]:
    """Draw batches of BATCH_SIZE without end, of things alike in length: little is padding."""
    while True:
        pool = sorted((draw() for _ in range(BATCH_SIZE * POOLED_BATCHES)), key=length)
        starts = torch.randperm(POOLED_BATCHES) * BATCH_SIZE
        yield from (pool[start : start + BATCH_SIZE] for start in starts.tolist())


def rank_batches(
    tokenizer: BertTokenizerFast, rng: np.random.Generator, draw: Draw
) -> Iterator[Batch]:
    """Draw queries with documents, and their relevances: float of shape (BATCH_SIZE,), 0..1."""
    scenes = training_scenes()
    for pairs in batches(
        lambda: draw(scenes, rng), lambda pair: len(pair.query) + len(pair.document)
    ):
        encoded = tokenize_pairs(
            tokenizer, [pair.query for pair in pairs], [pair.document for pair in pairs]
        )
        yield encoded, torch.tensor([pair.relevance for pair in pairs])


def class_batches(tokenizer: BertTokenizerFast, rng: np.random.Generator) -> Iterator[Batch]:
    """Draw texts, and the positions of their labels in LABELS: int of shape (BATCH_SIZE,)."""
    scenes = training_scenes()
    for drawn in batches(lambda: draw_labelled(scenes, rng), lambda one: len(one.text)):
        labels = torch.tensor([LABELS.index(one.label) for one in drawn])
        yield tokenize(tokenizer, [one.text for one in drawn]), labels


def rank_loss(logits: torch.Tensor, relevances: torch.Tensor) -> torch.Tensor:
    """Make the sigmoid of the one logit the relevance."""
    return functional.binary_cross_entropy_with_logits(logits.squeeze(1), relevances)


def train(
    model: BertForSequenceClassification,
    steps: int,
    drawn: Iterator[Batch],
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    """Train a model in place.

    Args:
        model: gives logits, (BATCH_SIZE, labels).
        steps: how many batches it sees.
        drawn: the batches.
        loss_of: of a batch's logits and targets.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=WARM_UP
    )
    started = time.monotonic()
    model.train()
    for step, (texts, targets) in enumerate(islice(drawn, steps), 1):
        loss = loss_of(model(**texts).logits, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        if step % LOG_EVERY == 0:
            logger.info("step %d of %d: loss %.4f", step, steps, loss.item())
    model.eval()
    logger.info("trained in %.0f s", time.monotonic() - started)


def held_out_scenes() -> list[Scene]:
    """List the scenes that training has not seen."""
    return [scene for scene in all_scenes() if is_held_out(scene)]


def report_ranking(model: BertForSequenceClassification, tokenizer: BertTokenizerFast) -> None:
    """Print how well held-out queries rank the captions of all scenes, held-out ones included."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    documents, scenes = all_captions(), all_scenes()
    first, ordered, pairs, queries = 0, 0, 0, 0
    for scene in held_out_scenes() * HELD_OUT_ROUNDS:
        query = [draw_wording(scene, rng)] * len(documents)
        with torch.no_grad():
            scores = model(**tokenize_pairs(tokenizer, query, documents)).logits.squeeze(1)
        relevances = torch.tensor([shared(scene, other) for other in scenes])
        higher = relevances[:, None] > relevances[None, :]
        ordered += int((higher & (scores[:, None] > scores[None, :])).sum())
        pairs += int(higher.sum())
        first += scenes[int(scores.argmax())] == scene
        queries += 1
    logger.info(
        "held out, %d queries: best of %d documents first for %.2f %%, pairs in order %.2f %%",
        queries,
        len(documents),
        100 * first / queries,
        100 * ordered / pairs,
    )


def report_classes(model: BertForSequenceClassification, tokenizer: BertTokenizerFast) -> None:
    """Print how often the label of a held-out text is right."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    scenes = held_out_scenes()
    drawn = [draw_labelled(scenes, rng) for _ in range(len(scenes) * HELD_OUT_ROUNDS * 10)]
    with torch.no_grad():
        best = model(**tokenize(tokenizer, [one.text for one in drawn])).logits.argmax(dim=1)
    right = sum(LABELS[at] == one.label for at, one in zip(best.tolist(), drawn, strict=True))
    logger.info("held out, %d texts: %.2f %% labelled right", len(drawn), 100 * right / len(drawn))


def save(model: BertForSequenceClassification, tokenizer: BertTokenizerFast, out: Path) -> None:
    """Write the folder that the engine loads."""
    # Each call left its own padding and truncation behind, which would be saved.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        # safetensors lets the owner alone read its file; in a container that may be another user.
        file.chmod(0o644)


def seeded() -> np.random.Generator:
    """Seed the weights, and what is drawn: each model is the same whether or not it is alone."""
    torch.manual_seed(SEED)
    return np.random.default_rng(SEED)


def make_ranker(tokenizer: BertTokenizerFast) -> BertForSequenceClassification:
    """Train and measure shapes-rank."""
    rng = seeded()
    model = build_model(tokenizer, ["relevance"])
    logger.info("shapes-rank: %d weights", model.num_parameters())
    # What matches what is soon learnt from bare captions, and hardly ever from the full variety.
    train(model, CAPTION_STEPS, rank_batches(tokenizer, rng, draw_captions), rank_loss)
    train(model, RANK_STEPS, rank_batches(tokenizer, rng, draw_pair), rank_loss)
    report_ranking(model, tokenizer)
    return model


def make_classifier(tokenizer: BertTokenizerFast) -> BertForSequenceClassification:
    """Train and measure shapes-class."""
    rng = seeded()
    model = build_model(tokenizer, LABELS)
    logger.info("shapes-class: %d weights", model.num_parameters())
    train(model, CLASS_STEPS, class_batches(tokenizer, rng), functional.cross_entropy)
    report_classes(model, tokenizer)
    return model


def main() -> None:
    """Train, measure and save both models."""
    parser = argparse.ArgumentParser(description="Train the demo models shapes-rank, shapes-class.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the models' parent folder")
    out: Path = parser.parse_args().out
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    torch.set_num_threads(THREADS)
    tokenizer = build_tokenizer()
    logger.info("%d tokens", len(tokenizer))
    save(make_ranker(tokenizer), tokenizer, out / "shapes_rank")
    save(make_classifier(tokenizer), tokenizer, out / "shapes_class")


if __name__ == "__main__":
    main()
