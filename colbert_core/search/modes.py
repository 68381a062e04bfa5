"""What may rank passages, by the names that users give."""

from __future__ import annotations

MODES = ("maxsim", "hybrid", "words")
"""What ranks passages: their vectors, their vectors and words, or their words alone."""

HYBRID_WEIGHT = 0.1
"""Of the coverage in a hybrid search for words as they are in a sentence, where none is given."""
