"""ColBERT as it was first published: encode a collection, IVFPQ, mining, and the whole pipeline."""
