"""Counts tokens as the served model's own tokenizer sees them, special ones included.

The engine's count is no use for a job whose texts share a request with others: it is one number for
the whole request. For CLIP models it even counts the padding to the longest text of the batch.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from infinity_worker.infinity_client import InfinityClient, InfinityError
from infinity_worker.model_sources import resolve_models, tokenizer_folder
from infinity_worker.settings import Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

# More than this is counted in a thread, which the tokenizer lets run beside the event loop.
_INLINE_CHARS = 4_000
_NO_LIMIT = 1 << 62
# What the engine is asked for, to see how it counts: texts of different lengths in one request.
_PROBES = ("one", "two words", "a text of some more words than the others")


class TokenCounter:
    """Counts with one model's tokenizer.

    Attributes:
        max_tokens: how many tokens of a text the model reads; None where it does not say.

    Args:
        tokenizer: the model's.
        max_tokens: where the model cuts a text; None where it does not say.
    """

    def __init__(self, tokenizer: "Tokenizer", max_tokens: int | None) -> None:
        tokenizer.no_padding()
        if max_tokens:
            tokenizer.enable_truncation(max_tokens)
        else:
            tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._specials = self._count([""])
        self._engine_counts_plain = False

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read `tokenizer.json` and the limits that stand beside it, as Transformers saves them.

        Raises:
            OSError: there is no `tokenizer.json`.
            ValueError: a file is malformed.
        """
        # Only now: a worker that counts nothing need not hold the library in memory.
        from tokenizers import Tokenizer  # noqa: PLC0415

        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        return cls(Tokenizer.from_str(text), _max_tokens(folder))

    async def count(self, texts: Sequence[str]) -> int:
        """Count the tokens of all the texts, each cut where the model cuts it."""
        if sum(map(len, texts)) <= _INLINE_CHARS:
            return self._count(texts)
        return await asyncio.to_thread(self._count, texts)

    async def cut(self, texts: Sequence[str]) -> list[int]:
        """Positions of the texts that are longer than the model reads."""
        encodings = await asyncio.to_thread(self._tokenizer.encode_batch, texts)
        return [at for at, encoding in enumerate(encodings) if encoding.overflowing]

    def learn_how_the_engine_counts(self, probe_tokens: int) -> None:
        """Note whether the engine's count for `_PROBES` is that of their tokens, less special ones.

        Infinity's is for sentence-transformers' models; for CLIP models it counts padding as well.
        """
        plain = self._count(_PROBES) - self._specials * len(_PROBES)
        self._engine_counts_plain = probe_tokens == plain

    def may_ask_engine(self, texts: Sequence[str]) -> bool:
        """Tell whether the engine's count for these texts, alone in their requests, is enough.

        It is if the engine counts plain tokens and no text can be cut: a token is a byte or more.
        """
        if not self._engine_counts_plain:
            return False
        room = (self.max_tokens or _NO_LIMIT) - self._specials
        return all(
            len(text) <= room if text.isascii() else len(text.encode()) <= room for text in texts
        )

    def from_engine(self, engine_tokens: int, texts: int) -> int:
        """Make the engine's count for so many texts that of all their tokens."""
        return engine_tokens + self._specials * texts

    def _count(self, texts: Sequence[str]) -> int:
        return sum(map(len, self._tokenizer.encode_batch_fast(texts)))


def load_counters(settings: Settings) -> dict[str, TokenCounter]:
    """Load a counter for every model whose tokenizer lies on this machine, by served name."""
    counters: dict[str, TokenCounter] = {}
    for source in resolve_models(settings):
        model = source.model
        try:
            folder = tokenizer_folder(source, settings)
            counters[model.name] = TokenCounter.from_folder(folder)
        except Exception as error:  # noqa: BLE001  # the library raises bare Exceptions
            log.warning(
                "model %s: its tokenizer.json cannot be used (%s); its texts are not sent together "
                "with those of other jobs, and its usage is what the engine counts",
                model.name,
                type(error).__name__,
            )
    return counters


async def learn_how_engine_counts(
    counters: Mapping[str, TokenCounter], client: InfinityClient
) -> None:
    """Let each counter see the engine's own count for the same texts."""
    for name, counter in counters.items():
        # A model that does not embed texts, or fails, teaches nothing.
        with contextlib.suppress(InfinityError):
            batch = await client.get_embeddings(name, _PROBES)
            counter.learn_how_the_engine_counts(batch.prompt_tokens)


def _max_tokens(folder: Path) -> int | None:
    """Where the engine cuts a text of this model.

    sentence-transformers' own limit counts first. Infinity cuts texts for CLIP models at the
    config's `max_length`, 20 where it is not set (the default of Transformers' configurations).
    """
    sentences = _read(folder / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(sentences, int):
        return sentences
    config = _read(folder / "config.json")
    if "vision_config" in config:
        own = config.get("max_length", 20)
        return own if isinstance(own, int) else None
    limits = [
        _read(folder / "tokenizer_config.json").get("model_max_length"),
        config.get("max_position_embeddings"),
    ]
    # Transformers writes 1e30 where there is no limit.
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 10**7]
    return min(known, default=None)


def _read(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}
