"""Texts before they are encoded: documents read, lines, and where to cut."""
