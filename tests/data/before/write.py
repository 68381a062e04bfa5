"""Writes the files beside it, with version 0.1.0 before its modules were divided into folders; README.md says how."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import conftest  # the tests' of that version
import torch
from colbert_core.checkpoint import EncoderConfig
from colbert_core.codec import ResidualCodec
from colbert_core.ivfpq import IVFPQ, encode_collection
from llama_index.core.schema import TextNode
from transformers import BertConfig

from colbert_core import Encoder, Evidence, Hit, Index, Passage, Reranker, SearchConfig, store
from llama_index_colbert import ColBERTIndex

FORMATS = ("stanford", "pylate", "sentence-transformers")
TEXTS = [
    "the cat sat on the mat",
    "dogs bark and cats purr",
    "rust is a language of systems",
    "happy pets make a happy cat. the dog sat on a mat, and the cat sat on the dog. what sound does a dog make?",
    "what sound does a cat make",
    "a language is happy",
    "systems of pets or dogs",
    "the dog sat on the cat, the cat sat on the mat, and the mat is on a system of cats and dogs that purr or bark",
]
QUERIES = ["happy cats", "the dog sat", "what language"]


def tiny_encoder() -> Encoder:
    """A random model of one layer, saved in three formats; its name is no path, so that indexes hold none of this machine."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

    def config(**given):
        return BertConfig(**given | sizes)

    conftest.BertConfig = config
    source = conftest.write_stanford(Path("source"), weights={"linear.weight": torch.randn(16, 8)})
    loaded = Encoder.from_pretrained(source, device="cpu", dtype="float32")
    for format in FORMATS:
        loaded.save(Path("models") / format, format=format)
    shutil.rmtree(source)
    return Encoder(loaded._backbone, loaded._head, loaded._tokenizer, loaded.config, name="tiny")


def passages() -> list[Passage]:
    made = []
    for number in range(36):
        words = [conftest.WORDS[number * factor % len(conftest.WORDS)] for factor in (1, 5, 7)]
        metadata = {"year": 2000 + number, "even": number % 2 == 0}
        made.append(Passage(f"p{number:02}", f"{TEXTS[number % 8]} {' '.join(words)}", metadata))
    return made


def fill(index: Index, n: int) -> None:
    """Three segments, replaced and deleted passages."""
    index.add(passages()[: n - 4], progress=False)
    index.add(passages()[n - 4 : n], progress=False)
    index.add([Passage("p03", "cats", {"year": 1990, "nested": {"languages": ["de", "日本語"]}})], progress=False)
    index.delete(["p05", "p07"])
    index.delete_where({"year": {"$gte": 1998 + n}})


def told(hit: Hit) -> dict[str, object]:
    return {
        "id": hit.passage.id,
        "score": hit.score,
        "relevance": hit.relevance,
        "span": hit.span,
        "metadata": hit.passage.metadata,
    }


def hits_of(index: Index) -> dict[str, object]:
    return {
        "search": {query: [told(hit) for hit in index.search(query, 5)] for query in QUERIES},
        "where": [told(hit) for hit in index.search(QUERIES[0], 50, where={"even": True, "year": {"$lt": 2020}})],
        "diverse": [told(hit) for hit in index.search_diverse(QUERIES[1], 3)],
        "mean": [told(hit) for hit in index.search_mean(QUERIES, 3)],
        "ids": index.ids(),
    }


def evidence_of(evidence: Evidence) -> dict[str, object]:
    return {**evidence.to_dict(), "matches": [[*match.query_span, *match.span, match.similarity] for match in evidence.matches]}


def rounded(value: object) -> object:
    """Numbers with 7 digits, to keep the file small."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def main() -> None:
    torch.manual_seed(5)
    encoder = tiny_encoder()
    expected: dict[str, object] = {}

    vectors = encoder.encode_passages([passage.text for passage in passages()], progress=False)
    expected["vectors"] = {
        "query": encoder.encode_queries(QUERIES[:1])[0].tolist(),
        "passage": encoder.encode_passages(TEXTS[:1], progress=False).vectors.tolist(),
    }
    codec = ResidualCodec.fit(vectors.vectors, 16, 4)
    store._LARGEST_ROW = 2**11  # so that some segments are files, and some are rows of the database
    with Index.create("compressed", encoder, codec=codec) as index:
        fill(index, 36)
        expected["compressed"] = hits_of(index)
        stats, tuning = index.stats(), index.tune(k=5, queries=QUERIES, progress=False)
        print(stats, index.verify(progress=False))
    store._LARGEST_ROW = 2**20
    with Index.create("uncompressed", encoder) as index:
        fill(index, 12)
        expected["uncompressed"] = hits_of(index)
        print(index.stats(), index.verify(progress=False))

    llama = ColBERTIndex(
        [TextNode(id_=f"n{number}", text=text, metadata={"number": number}) for number, text in enumerate(TEXTS)],
        model_name=encoder,
    )
    llama.persist("llama_index")
    expected["llama_index"] = {
        query: [
            [scored.node.node_id, scored.score, scored.node.get_content(), scored.node.metadata]
            for scored in llama.query(query, top_k=3)
        ]
        for query in QUERIES
    }

    memory = Index.create(dim=16)
    matrices = encoder.encode_queries(TEXTS)
    memory.add([Passage(f"m{number}", text) for number, text in enumerate(TEXTS)], embeddings=matrices, progress=False)
    expected["memory"] = {
        query: [told(hit) for hit in memory.search(encoder.encode_queries([query])[0], 5)] for query in QUERIES
    }

    with Index.open("uncompressed", encoder) as index:
        (hit,) = index.search(QUERIES[0], 1, evidence=True)
    assert hit.evidence is not None
    hit.evidence.highlights  # noqa: B018, cached with it
    expected["hit"] = {**told(hit), "evidence": evidence_of(hit.evidence)}
    excerpt = Reranker(encoder).excerpts(QUERIES[1], passages()[3:5], max_tokens=20)[0]
    encode_collection(passages()[:8], encoder, "encoded", shard_passages=5, progress=False)
    ivfpq = IVFPQ.build("encoded", "ivfpq", nlist=2, m=4, nbits=4, progress=False)
    query = encoder.encode_queries(QUERIES[:1])
    expected["ivfpq"] = ivfpq.search_many(query, 5)
    values = {
        "default_encoder": Encoder.from_pretrained(),
        "memory": memory,
        "hit": hit,
        "search_config": SearchConfig(nprobe=3, n_exact=64),
        "encoder_config": EncoderConfig(query_marker="[unused0]", skip_tokens=("!", "?")),
        "token_embeddings": encoder.encode_passages(TEXTS[:2], progress=False),
        "excerpt": excerpt,
        "index_stats": stats,
        "tuning": tuning,
        "codec": codec,
        "ivfpq": ivfpq,
    }
    Path("pickles").mkdir()
    for name, value in values.items():
        Path("pickles", f"{name}.pickle").write_bytes(pickle.dumps(value, protocol=5))
    embeddings = values["token_embeddings"]
    expected["values"] = {
        "search_config": repr(values["search_config"]),
        "encoder_config": repr(values["encoder_config"]),
        "token_embeddings": {name: getattr(embeddings, name).tolist() for name in type(embeddings).__dataclass_fields__},
        "excerpt": repr(excerpt),
        "index_stats": repr(stats),
        "tuning": repr(tuning),
        "codec": {"centroids": codec.centroids.tolist(), "levels": codec.levels.tolist(), "layers": codec.layers},
    }
    Path("expected.json").write_text(json.dumps(rounded(expected), ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
