"""How alike texts are in meaning, by static embeddings: a vector a word, averaged; no model runs, nothing is fetched.

WordLlama's wheel has the weights and the tokenizer's configuration in it (https://github.com/dleemiller/WordLlama).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xpander_magics import extras
from xpander_magics.errors import ConfigError
from xpander_magics.safety import encodable

_CONFIG, _DIMENSIONS = "l2_supercat", 256
# A batch is padded to its longest text: so many characters at once keep its vectors within some 100 MB.
_BATCH_CHARACTERS = 200_000
_LONGEST = 100_000
"""Of a longer text, the beginning is taken."""


def model_name() -> str:
    """The model, for what is kept with the scores; it isn't loaded yet.

    Raises:
        ConfigError: WordLlama is missing.
    """
    from importlib import metadata

    try:
        return f"wordllama {metadata.version('wordllama')}, {_CONFIG} {_DIMENSIONS}"
    except metadata.PackageNotFoundError:
        raise ConfigError(extras.missing("The scorer embedding needs", "embedding")) from None


@functools.cache
def _model() -> Any:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    import wordllama

    # It configures everybody's logging when it is imported.
    root.setLevel(level)
    root.handlers[:] = handlers
    # As if it were the cache: there the tokenizer's configuration is looked for under the name that it has.
    folder = Path(wordllama.__file__).parent
    try:
        return wordllama.WordLlama.load(_CONFIG, cache_dir=folder, dim=_DIMENSIONS, disable_download=True)
    except FileNotFoundError as error:
        raise ConfigError(f"The scorer embedding can't be loaded: {error} pip install -U wordllama") from None


def cosines(pairs: Sequence[tuple[str, str]]) -> list[float | None]:
    """The cosine of the two texts of each pair, from -1 to 1; None where one has no word that the model knows."""
    import numpy as np

    if not pairs:
        return []
    places: dict[str, int] = {}
    for pair in pairs:
        for text in pair:
            places.setdefault(text[:_LONGEST], len(places))
    vectors = _vectors(list(places))
    left, right = (vectors[[places[pair[side][:_LONGEST]] for pair in pairs]] for side in (0, 1))
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.einsum("ij,ij->i", left, right) / lengths
    return [
        float(min(max(value, -1.0), 1.0)) if length > 0 else None for value, length in zip(found, lengths, strict=True)
    ]


def _vectors(texts: Sequence[str]) -> Any:
    """A vector for each text, of mean length: (texts, dimensions), float32."""
    import numpy as np

    model = _model()
    texts = [encodable(text) for text in texts]
    vectors = np.zeros((len(texts), _DIMENSIONS), dtype="float32")
    # Texts of like length go together: little is padded.
    order = sorted((place for place, text in enumerate(texts) if text.strip()), key=lambda place: len(texts[place]))
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end - start + 1) * len(texts[order[end]]) <= _BATCH_CHARACTERS:
            end += 1
        places = order[start:end]
        vectors[places] = model.embed([texts[place] for place in places], batch_size=len(places))
        start = end
    return vectors
