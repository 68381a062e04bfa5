"""Texts of three sentences, of which one answers "Why do cats purr?"."""

CATS = "Cats are mammals. They purr when they are content. Many of them live on farms."
RUST = "Rust is a language. It was made at Mozilla. Rust programs do not crash much."


# What an encoder of whole words between blanks misses, and the words find.
IDENTIFIER, WITH_IDENTIFIER = "zx-4711", "the sea (see zx-4711)"
