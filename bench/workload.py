"""What the clients ask for, and the check of what they get."""

import base64
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import orjson

from bench.vectors import MODELS, kinds_of, vectors

_WORDS = (
    *("river", "window", "market", "engine", "quiet", "orange", "letter", "mountain", "copper"),
    *("signal", "garden", "winter", "paper", "small", "bright", "ocean", "turtle", "ladder"),
    *("coffee", "silver", "night", "travel", "answer", "number", "street", "music"),
)
_WORDS_PER_TEXT = 8
_POOL_TEXTS = 1_024
_POOL_JOBS = 64


class WrongAnswerError(Exception):
    """An answer is not what it must be; the run is worth nothing."""


@dataclass(frozen=True)
class Workload:
    """Jobs of one kind.

    Attributes:
        texts: texts in a job.
        dimensions: numbers in an embedding.
        encoding: what the caller asks for.
        model: a served name.
    """

    texts: int
    dimensions: int = 384
    encoding: Literal["float", "base64"] = "base64"
    model: str = "standin-384"

    @property
    def name(self) -> str:
        """For tables."""
        plural = "text" if self.texts == 1 else "texts"
        return f"{self.texts} {plural} × {self.dimensions} {self.encoding}"

    @property
    def least_bytes(self) -> int:
        """No right answer is shorter than this; an error always is."""
        per_number = 5.0 if self.encoding == "base64" else 4.0
        return int(self.texts * self.dimensions * per_number)

    @cached_property
    def inputs(self) -> Sequence[Sequence[str]]:
        """The texts of the jobs that the clients take turns with."""
        pool = sentences(_POOL_TEXTS)
        starts = range(0, _POOL_TEXTS - self.texts + 1, max(1, _POOL_TEXTS // _POOL_JOBS))
        return [pool[start : start + self.texts] for start in starts]

    @cached_property
    def job_inputs(self) -> Sequence[bytes]:
        """The same as serialised job inputs, as the platform's OpenAI route makes them."""
        return [
            orjson.dumps({"openai_route": "/v1/embeddings", "openai_input": body})
            for body in self._bodies
        ]

    @cached_property
    def requests(self) -> Sequence[bytes]:
        """The same as bodies of HTTP requests."""
        return [orjson.dumps(body) for body in self._bodies]

    @cached_property
    def engine_requests(self) -> Sequence[bytes]:
        """The same as bodies for the engine itself; always base64, which is cheapest there."""
        return [orjson.dumps({**body, "encoding_format": "base64"}) for body in self._bodies]

    @property
    def _bodies(self) -> list[dict[str, object]]:
        return [
            {
                "model": self.model,
                "input": texts[0] if self.texts == 1 else texts,
                "encoding_format": self.encoding,
            }
            for texts in self.inputs
        ]

    def check_quickly(self, head: bytes, size: int) -> None:
        """Check what every posted result must satisfy.

        Raises:
            WrongAnswerError: it is an error, or too short to be an answer.
        """
        if not head.startswith(b'{"output":') or size < self.least_bytes:
            raise WrongAnswerError(f"{self.name}: the worker posted {size} bytes: {head[:400]!r}")

    def check_fully(self, number: int, posted: bytes) -> None:
        """Check count, order and, for the stand-in's models, every bit of job `number`'s result.

        Raises:
            WrongAnswerError: something differs.
        """
        result = orjson.loads(posted)
        if set(result) != {"output"}:
            raise WrongAnswerError(f"{self.name}: the worker posted the keys {sorted(result)}")
        [answer] = result["output"]
        self.check_answer(number, answer)

    def check_answer(self, number: int, answer: Mapping[str, Any]) -> None:
        """Check an OpenAI answer to job `number`.

        Raises:
            WrongAnswerError: something differs.
        """
        texts = self.inputs[number % len(self.inputs)]
        if [entry["index"] for entry in answer["data"]] != list(range(len(texts))):
            raise WrongAnswerError(f"{self.name}: not one embedding a text, in order")
        rows = [_floats(entry["embedding"]) for entry in answer["data"]]
        if any(row.shape != (self.dimensions,) or not np.isfinite(row).all() for row in rows):
            raise WrongAnswerError(f"{self.name}: an embedding has another shape, or no numbers")
        if self.model not in MODELS:
            return
        known = vectors(self.dimensions)
        for row, kind in zip(rows, kinds_of(texts), strict=True):
            if row.tobytes() != known[kind].tobytes():
                raise WrongAnswerError(f"{self.name}: an embedding is not the engine's, bit by bit")


def sentences(count: int) -> list[str]:
    """Distinct short sentences of about ten tokens, always the same ones."""
    draw = random.Random(7)  # noqa: S311  # reproducible on purpose
    return [
        " ".join(draw.choices(_WORDS, k=_WORDS_PER_TEXT)) + f" {number}" for number in range(count)
    ]


def _floats(embedding: object) -> "np.ndarray[Any, np.dtype[np.float32]]":
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.array(embedding, dtype="<f4")
