"""Documents of LangChain that several tests retrieve or rerank."""

from __future__ import annotations

from langchain_core.documents import Document

DOCUMENTS = [
    Document("the cat sat on the mat", metadata={"page": 1}, id="cat"),
    Document("a dog barks at night", metadata={"page": 2}, id="dog"),
    Document("a bird sings a song", metadata={"page": 3}, id="bird"),
    Document("rust is a language", metadata={"page": 4}, id="rust"),
    Document("fish swim in the sea", metadata={"page": 5}, id="fish"),
]

TAGGED_DOCUMENTS = [
    Document("the cat sat on the mat", metadata={"page": 1, "kind": "pet"}, id="cat"),
    Document("a dog barks at night", metadata={"page": 2, "kind": "pet"}, id="dog"),
    Document("a bird sings a song", metadata={"page": 3, "tags": ["wild", "small"]}, id="bird"),
    Document("rust is a language", metadata={"page": 4}, id="rust"),
    Document("fish swim in the sea", metadata={"page": 5, "tags": ["wild"]}, id="fish"),
]


def ids(documents):
    return [document.id for document in documents]
