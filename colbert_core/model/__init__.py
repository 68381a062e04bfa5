"""ColBERT checkpoints: how they are read, and how texts become token vectors."""
