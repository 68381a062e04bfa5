"""What is left of the answers when the passages that were retrieved are cut down to some of their sentences.

    python benchmarks/excerpts.py DATA/squad-answers [--model NAME] [--first 1000] [--ratios 0.15 0.25 0.35 0.5]

The folder has corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and answers.jsonl (_id, answers), each answer a
substring of a passage. For each question 10 passages are retrieved and cut to a part of their tokens. Of the questions with
an answer among the 10, a table gives the part that still has one, and the tokens that were really kept, for

    excerpts          sentences by MaxSim (Reranker.excerpts)
    pooled cosine     sentences encoded by themselves, by the cosine of the means of their vectors and the question's
    first sentences   of every passage the first ones
    first passages    the best passages, up to the budget
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from colbert_core import Encoder, Index, Passage, set_num_threads
from colbert_core.search.excerpts import choose_sentences, excerpts
from colbert_core.text.splitter import sentences
from colbert_core.vectors.embeddings import of_owner, token_ends


def read_jsonl(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def means(embeddings, n):
    """The unit mean of each text's vectors, (n, dim)."""
    owners = np.repeat(embeddings.owners, embeddings.doclens)
    sums = np.zeros((n, embeddings.vectors.shape[1]), np.float32)
    np.add.at(sums, owners, embeddings.vectors)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="default: the model in the box")
    parser.add_argument("--first", type=int, help="only so many questions")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.15, 0.25, 0.35, 0.5])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_num_threads(options.threads)

    encoder = Encoder.from_pretrained(options.model)
    passages = [
        Passage(line["_id"], f"{line.get('title', '')} {line['text']}".strip())
        for line in read_jsonl(options.folder / "corpus.jsonl")
    ]
    answers = {line["_id"]: line["answers"] for line in read_jsonl(options.folder / "answers.jsonl")}
    questions = [line for line in read_jsonl(options.folder / "queries.jsonl") if line["_id"] in answers][: options.first]
    embeddings = encoder.encode_passages([passage.text for passage in passages])
    index = Index.create(None, encoder, nbits=32)
    index.add(passages, embeddings=embeddings)
    matrices = encoder.encode_queries([line["text"] for line in questions])
    found = index.search_many(matrices, 10)

    ends, row_of = token_ends(embeddings), {passage.id: row for row, passage in enumerate(passages)}
    cuts = [sentences(passage.text) for passage in passages]
    pieces = [passage.text[start:end] for passage, some in zip(passages, cuts, strict=True) for start, end in some]
    firsts = np.cumsum([0, *map(len, cuts)])
    pooled = means(encoder.encode_passages(pieces), len(pieces))
    lengths = {text: encoder.count_tokens(text) for text in {*pieces, *(passage.text for passage in passages)}}

    def count(text):
        return lengths[text] if text in lengths else encoder.count_tokens(text)

    tally = {}
    seconds = 0.0
    for line, matrix, hits in zip(questions, matrices, found, strict=True):
        retrieved = [hit.passage for hit in hits]
        if not any(answer in passage.text for passage in retrieved for answer in answers[line["_id"]]):
            continue
        rows = [row_of[passage.id] for passage in retrieved]
        mine = [cuts[row] for row in rows]
        ours = [of_owner(embeddings, row, ends) for row in rows]
        packed = type(embeddings)(
            *(
                np.concatenate([getattr(one, name) for one in ours])
                for name in ("vectors", "token_spans", "doclens", "window_spans")
            ),
            owners=np.repeat(np.arange(len(ours), dtype=np.int32), [len(one.doclens) for one in ours]),
        )
        asked = matrix.mean(axis=0) / np.linalg.norm(matrix.mean(axis=0))
        others = {
            "pooled cosine": [pooled[firsts[row] : firsts[row + 1]] @ asked for row in rows],
            "first sentences": [-np.arange(len(some), dtype=np.float32) for some in mine],
            "first passages": [-(1000.0 * rank + np.arange(len(some))) for rank, some in enumerate(mine)],
        }
        n_before = sum(count(passage.text) for passage in retrieved)
        for ratio in options.ratios:
            begun = time.perf_counter()
            results = {"excerpts": excerpts(matrix, retrieved, packed, count, max_tokens=None, keep_ratio=ratio)}
            seconds += time.perf_counter() - begun
            for name, scores in others.items():
                results[name] = choose_sentences(retrieved, mine, scores, count, max_tokens=None, keep_ratio=ratio)
            for name, kept in results.items():
                survives = any(answer in one.text for one in kept for answer in answers[line["_id"]])
                entry = tally.setdefault((name, ratio), [0, 0, 0, 0])
                for place, value in enumerate((1, survives, sum(one.n_tokens for one in kept), n_before)):
                    entry[place] += value
    n = next(iter(tally.values()))[0]
    print(f"{encoder.name}: {n} of {len(questions)} questions have an answer in 10 passages; "
          f"{1000 * seconds / n / len(options.ratios):.1f} ms to choose sentences")  # fmt: skip
    print(f"{'':17}" + "".join(f"{f'{ratio:.0%} of tokens':>18}" for ratio in options.ratios))
    for name in dict.fromkeys(name for name, _ in tally):
        cells = (tally[name, ratio] for ratio in options.ratios)
        print(f"{name:17}" + "".join(f"{kept / n:>10.3f} ({tokens / whole:.1%})" for _, kept, tokens, whole in cells))


if __name__ == "__main__":
    main()
