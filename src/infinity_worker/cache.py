"""An optional memory of text embeddings, for callers who send the same texts again."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pybase64

from infinity_worker.batching import Batcher
from infinity_worker.infinity_client import EmbeddingBatch, InfinityError

# What an entry costs beside its numbers: key, objects, the table's slot (measured: about 250).
_ENTRY_BYTES = 256


class EmbeddingCache:
    """The embeddings of the texts that were asked for last, within a number of bytes.

    Texts are kept as hashes, and embeddings whole: fewer dimensions are cut from them.

    Args:
        max_bytes: the memory that entries may take; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._max_bytes > 0

    def __len__(self) -> int:
        return len(self._entries)

    async def embed(
        self, batcher: Batcher, model: str, texts: Sequence[str]
    ) -> tuple[EmbeddingBatch, int]:
        """Embed texts that may share engine requests; only those not known are sent.

        Returns:
            The embeddings, whose `prompt_tokens` mean nothing, and how many were known.

        Raises:
            InfinityError: the engine could not answer; `item` is a position in `texts`.
        """
        if not self.keeps:
            return await batcher.embed(model, texts, "text", together=True), 0
        keys = [_key(model, text) for text in texts]
        rows = {key: self._get(key) for key in keys}
        unknown = [at for at, key in enumerate(keys) if rows[key] is None]
        if unknown:
            missing = [texts[at] for at in unknown]
            try:
                batch = await batcher.embed(model, missing, "text", together=True)
            except InfinityError as error:
                error.item = None if error.item is None else unknown[error.item]
                raise
            for at, vector in zip(unknown, batch.vectors, strict=True):
                rows[keys[at]] = self._put(keys[at], vector.astype("<f4").tobytes())
        found = [row for key in keys if (row := rows[key]) is not None]
        vectors = np.frombuffer(b"".join(found), dtype="<f4").reshape(len(texts), -1)
        encoded = [pybase64.b64encode_as_string(row) for row in found]
        return EmbeddingBatch(encoded, vectors, 0), len(texts) - len(unknown)

    def _get(self, key: bytes) -> bytes | None:
        row = self._entries.get(key)
        if row is not None:
            self._entries.move_to_end(key)
        return row

    def _put(self, key: bytes, row: bytes) -> bytes:
        if key not in self._entries:
            self._bytes += len(row) + _ENTRY_BYTES
        self._entries[key] = row
        while self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest) + _ENTRY_BYTES
        return row


def _key(model: str, text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, key=model.encode()[:64]).digest()
