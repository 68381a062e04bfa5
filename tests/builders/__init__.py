"""Parts that tests of several folders build: encoders and checkpoints, vectors, and indexes of other libraries."""
