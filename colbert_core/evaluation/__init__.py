"""Test sets, measures and the BM25 baseline."""
