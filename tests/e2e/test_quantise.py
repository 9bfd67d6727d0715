"""Embeddings in fewer bits, as sentence-transformers' own function makes them."""

import json
import subprocess

import numpy as np

from e2e.conftest import Stack
from infinity_worker.quantise import value_range
from processes import BOUND_S, ROOT

TEXTS = [f"text number {at} of a few" for at in range(20)]
THEIRS = """
import json, sys
import numpy as np
from sentence_transformers.quantization import quantize_embeddings

given = json.load(sys.stdin)
vectors = np.array(given["vectors"], np.float32)
limit = given["limit"]
ranges = np.array([[-limit] * vectors.shape[1], [limit] * vectors.shape[1]], np.float32)
print(json.dumps({
    kind: quantize_embeddings(vectors, kind, ranges=ranges).tolist()
    for kind in ("int8", "uint8", "binary", "ubinary")
}))
"""


def test_every_type_is_what_sentence_transformers_makes_of_it(stack: Stack) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary"]
    job = stack.runsync({"input": TEXTS, "model": "minilm", "embedding_types": types})
    ours = [entry["embedding"] for entry in job["output"]["data"]]
    vectors = [each["float"] for each in ours]
    # Unit vectors in range: what lies beyond it, theirs lets overflow.
    limit = value_range(len(vectors[0]))
    assert np.abs(vectors).max() <= limit
    python = ROOT / "engine" / ".venv" / "bin" / "python"
    theirs = subprocess.run(
        [python, "-c", THEIRS],
        input=json.dumps({"vectors": vectors, "limit": limit}),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    for kind, values in json.loads(theirs.stdout.splitlines()[-1]).items():
        difference = np.abs(np.array([each[kind] for each in ours]) - np.array(values))
        # Sums in another order may fall on the other side of a step.
        assert difference.max() <= (1 if "int8" in kind and kind != "binary" else 0), kind
