"""Indexes of other libraries, as they lie on disk: written here by their published layout, decoded by their formula."""

from __future__ import annotations

import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.foreign_indexes import (
    DOCLENS,
    TEXTS,
    write_fast_plaid_index,
    write_json,
    write_ragatouille_index,
    write_stanford_index,
)
from builders.vectors import clustered

from colbert_core import (
    DamagedIndexError,
    EncoderMismatchError,
    Index,
    IndexNotFoundError,
    Passage,
    UnsupportedIndexError,
    read_foreign_index,
)

WRITERS = {
    "Stanford ColBERT": write_stanford_index,
    "RAGatouille": write_ragatouille_index,
    "fast-plaid": write_fast_plaid_index,
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(("dim", "nbits"), [(32, 1), (32, 2), (32, 4), (128, 2), (96, 4), (48, 2), (8, 8)])
def test_decoded_vectors_are_those_of_the_other_library(tmp_path, kind, dim, nbits):
    decoded = WRITERS[kind](tmp_path / "old", dim=dim, nbits=nbits)
    foreign = read_foreign_index(tmp_path / "old")
    assert (foreign.kind, len(foreign), foreign.n_tokens) == (kind, 7, 31)
    with Index.convert(foreign, tmp_path / "new.idx") as index:
        stats = index.stats()
        assert (stats.passages, stats.tokens, stats.dim, stats.nbits, stats.centroids) == (6, 31, dim, nbits, 8)
    with Index.open(tmp_path / "new.idx") as index:
        everyone = sorted(hit.passage.id for hit in index.search(decoded[:2], k=99))
        order = (
            ["cats#1", "cats#2", "dogs", "birds", "fish", "ants"] if kind == "RAGatouille" else ["0", "1", "2", "3", "4", "6"]
        )
        assert everyone == sorted(order)
        np.testing.assert_allclose(np.concatenate(index.embeddings(order)), decoded, atol=1e-3)
        assert index.search(decoded[4:13], k=1)[0].passage.id == order[1]
        assert index.verify().ok


def test_ragatouille_s_documents_keep_their_ids_and_metadata(tmp_path):
    write_ragatouille_index(tmp_path / "old")
    with Index.convert(read_foreign_index(tmp_path / "old")) as index:
        assert index.get(["cats#2", "birds", "dogs", "gone"]) == [
            Passage("cats#2", "text number 1", {"document_id": "cats", "legs": 4}),
            Passage("birds", "text number 3", {"legs": 2}),
            Passage("dogs", "text number 2"),
            None,
        ]
        assert len(index.search(np.ones((1, 32), np.float32), where={"document_id": "cats"})) == 2


def test_ragatouille_s_pieces_never_take_the_name_of_another_document(tmp_path):
    write_ragatouille_index(tmp_path / "old")
    documents = ["cats", "cats", "cats#1", "birds", "fish", "gone", "ants"]
    write_json(tmp_path / "old", "pid_docid_map.json", {str(number): name for number, name in enumerate(documents)})
    with Index.convert(read_foreign_index(tmp_path / "old")) as index:
        assert index.ids() == ["cats#1#", "cats#2", "cats#1", "birds", "fish", "ants"]


# RAGatouille after deletions: of four passages of 5, 4, 6 and 7 tokens, named after their texts


NAMES = ["ant", "cow", "dog", "elk"]


def ragatouille_after(folder, *, doclens, texts, documents):
    write_ragatouille_index(folder)
    flat = [count for counts in DOCLENS for count in counts]
    assert sum(doclens) <= sum(flat)
    write_json(folder, "doclens.0.json", doclens)
    write_json(folder, "doclens.1.json", [])
    for kind in ("codes", "residuals"):
        torch.save(torch.cat([torch.load(folder / f"{n}.{kind}.pt") for n in (0, 1)]), folder / f"0.{kind}.pt")
    write_json(folder, "collection.json", [f"{name} text" for name in texts])
    write_json(folder, "pid_docid_map.json", {str(number): name for number, name in documents.items()})
    write_json(folder, "docid_metadata_map.json", {name: {"title": name.upper()} for name in NAMES})
    return folder


def imported(folder, texts=None):
    with Index.convert(read_foreign_index(folder, texts)) as index:
        return {passage.id: passage.text for passage in index.get(index.ids())}


@pytest.mark.parametrize("gone", [{0}, {1}, {3}, {2, 3}, {0, 3}, {1, 2, 3}])
def test_ragatouille_s_map_says_what_is_left_after_a_deletion(tmp_path, gone):
    left = {number: name for number, name in enumerate(NAMES) if number not in gone}
    doclens = [0 if number in gone else count for number, count in enumerate([5, 4, 6, 7])]
    folder = ragatouille_after(tmp_path / "old", doclens=doclens, texts=left.values(), documents=left)
    assert imported(folder) == {name: f"{name} text" for name in left.values()}
    with Index.convert(read_foreign_index(folder)) as index:
        assert all(passage.metadata == {"title": passage.id.upper()} for passage in index.get(index.ids()))


@pytest.mark.parametrize("gone", [{0, 1}, {0, 2}, {0, 1, 3}])
def test_texts_that_several_deletions_may_have_mixed_up_are_refused_unless_they_are_given(tmp_path, gone):
    left = {number: name for number, name in enumerate(NAMES) if number not in gone}
    doclens = [0 if number in gone else count for number, count in enumerate([5, 4, 6, 7])]
    folder = ragatouille_after(tmp_path / "old", doclens=doclens, texts=left.values(), documents=left)
    with pytest.raises(
        DamagedIndexError, match=r"may lack the texts of other passages .* such as .*delete_from_index .*--collection"
    ):
        read_foreign_index(folder)
    assert imported(folder, [f"{name} text" for name in NAMES]) == {str(n): f"{name} text" for n, name in left.items()}


@pytest.mark.parametrize(
    ("doclens", "texts", "documents", "message"),
    [
        # Deleted number 1, then added one: the small index was built anew, and the map counts on.
        (
            [5, 6, 7, 8],
            ["ant", "dog", "elk", "fox"],
            {0: "ant", 2: "dog", 3: "elk", 4: "fox"},
            "names a passage 4, but there are 4",
        ),
        ([5, 6, 7], ["ant", "dog", "elk"], {0: "ant", 2: "dog", 3: "elk"}, "names a passage 3, but there are 3"),
        ([5, 6, 7], ["ant", "dog", "elk"], {0: "ant", 2: "elk"}, "names no document for passage 1, which has 6 tokens"),
        ([5, 0, 6, 7], ["ant", "dog"], {0: "ant", 2: "dog", 3: "elk"}, "4 passages, 3 of them left .* its collection has 2"),
        ([5, 0, 6], ["ant", "dog"], {0: "ant", "x": "dog"}, "names a passage x"),
        ([5, 0, 6], ["ant", "dog"], {0: "ant", -1: "dog"}, "names a passage -1"),
    ],
)
def test_a_map_of_other_passages_is_refused(tmp_path, doclens, texts, documents, message):
    folder = ragatouille_after(tmp_path / "old", doclens=doclens, texts=texts, documents=documents)
    with pytest.raises(DamagedIndexError, match=message):
        read_foreign_index(folder)


def test_deleted_passages_whose_texts_stayed_are_left_out(tmp_path):
    folder = ragatouille_after(tmp_path / "old", doclens=[5, 0, 0, 7], texts=NAMES, documents={0: "ant", 3: "elk"})
    assert imported(folder) == {"ant": "ant text", "elk": "elk text"}


def test_a_passage_added_to_a_large_index_after_a_deletion_keeps_its_id(tmp_path):
    documents = {0: "ant", 2: "dog", 3: "elk", 4: "fox"}
    folder = ragatouille_after(tmp_path / "old", doclens=[5, 0, 6, 7, 8], texts=documents.values(), documents=documents)
    assert imported(folder) == {name: f"{name} text" for name in documents.values()}


def test_one_text_for_all_is_refused(tmp_path):
    write_fast_plaid_index(tmp_path / "old")
    with pytest.raises(TypeError, match="texts must be a list of strings, got one str"):
        read_foreign_index(tmp_path / "old", "1234567")


def test_an_index_whose_passages_are_all_deleted_can_be_imported_and_grow(tmp_path):
    write_fast_plaid_index(tmp_path / "old")
    for number in (0, 1):
        write_json(tmp_path / "old", f"doclens.{number}.json", [0, 0])
    with Index.convert(read_foreign_index(tmp_path / "old")) as index:
        index.compact()
        index.add([Passage("x", "x")], embeddings=[np.ones((2, 32))])
        assert len(index.search(np.ones((1, 32), np.float32))) == 1


def test_texts_can_be_given_for_indexes_that_keep_none(tmp_path):
    write_fast_plaid_index(tmp_path / "old")
    index = Index.convert(read_foreign_index(tmp_path / "old", TEXTS))
    assert index.get(["3"]) == [Passage("3", "text number 3")]
    assert index.search(np.ones((1, 32), np.float32))[0].text.startswith("text number")
    with pytest.raises(ValueError, match="has 7 passages, but there are 2 texts"):
        read_foreign_index(tmp_path / "old", TEXTS[:2])


def test_fast_plaid_s_single_copy_layout_is_read(tmp_path):
    decoded = write_fast_plaid_index(tmp_path / "old", merged=True)
    index = Index.convert(read_foreign_index(tmp_path / "old"))
    np.testing.assert_allclose(np.concatenate(index.embeddings(["0", "1", "2", "3", "4", "6"])), decoded, atol=1e-3)


def test_an_imported_index_grows_and_shrinks_like_any_other(tmp_path):
    write_stanford_index(tmp_path / "old")
    with Index.convert(read_foreign_index(tmp_path / "old"), tmp_path / "new.idx") as index:
        new = clustered(np.random.default_rng(5), 10, 32)
        index.add([Passage("new", "new text"), Passage("0", "replaced")], embeddings=[new, new[:3]])
        assert index.search(new, k=1)[0].passage.id == "new"
        assert index.delete(["1", "2"]) == 2
        assert len(index) == 5
        index.compact()
        assert index.verify().ok
        with pytest.raises(EncoderMismatchError, match="made with the encoder 'someone/colbert', which cannot be loaded"):
            index.search("a question")


def test_the_encoder_it_names_is_used(tmp_path, stanford_folder):
    write_stanford_index(tmp_path / "old", dim=16, nbits=2, checkpoint=str(stanford_folder))
    with Index.convert(read_foreign_index(tmp_path / "old"), tmp_path / "new.idx") as index:
        assert len(index.search("the cat", k=3)) == 3
    with pytest.raises(EncoderMismatchError, match=r"holds vectors of dim 128, but the encoder .*stanford.* has dim 16"):
        write_stanford_index(tmp_path / "other", dim=128)
        Index.convert(read_foreign_index(tmp_path / "other"), tmp_path / "never.idx", stanford_folder)


@pytest.mark.parametrize(
    ("kind", "break_it", "error", "message"),
    [
        ("fast-plaid", lambda old: (old / "0.codes.npy").unlink(), DamagedIndexError, "0.codes.npy is missing"),
        ("fast-plaid", lambda old: (old / "metadata.json").unlink(), IndexNotFoundError, "no metadata.json"),
        ("fast-plaid", lambda old: (old / "centroids.npy").unlink(), UnsupportedIndexError, "has neither centroids.pt"),
        ("fast-plaid", lambda old: (old / "metadata.json").write_text("{"), DamagedIndexError, "metadata.json is no JSON"),
        ("fast-plaid", lambda old: (old / "metadata.json").write_text("{}"), DamagedIndexError, "names no number of chunks"),
        ("fast-plaid", lambda old: (old / "doclens.1.json").unlink(), DamagedIndexError, "doclens.1.json is missing"),
        ("fast-plaid", lambda old: (old / "doclens.1.json").write_text('["x"]'), DamagedIndexError, "no number of tokens"),
        (
            "fast-plaid",
            lambda old: (old / "doclens.1.json").write_text("[99]"),
            DamagedIndexError,
            "Chunk 1 has 99 tokens but 11",
        ),
        ("fast-plaid", lambda old: np.save(old / "bucket_weights.npy", np.zeros(3)), DamagedIndexError, "levels are damaged"),
        (
            "fast-plaid",
            lambda old: np.save(old / "0.residuals.npy", np.zeros((20, 3), np.uint8)),
            DamagedIndexError,
            "where whole numbers and rows of 16 bytes belong",
        ),
        (
            "fast-plaid",
            lambda old: np.save(old / "0.codes.npy", np.full(20, 8)),
            DamagedIndexError,
            "names a centroid that there is not",
        ),
        ("fast-plaid", lambda old: np.save(old / "0.codes.npy", np.full(20, 1.5)), DamagedIndexError, "codes of float64"),
        ("fast-plaid", lambda old: np.save(old / "0.codes.npy", np.zeros((20, 2), int)), DamagedIndexError, "codes of int64"),
        ("fast-plaid", lambda old: np.save(old / "centroids.npy", np.ones((8, 32), complex)), DamagedIndexError, "complex128"),
        ("fast-plaid", lambda old: np.save(old / "bucket_weights.npy", np.arange(4.0)), DamagedIndexError, "nbits is 4, but"),
        (
            "fast-plaid",
            lambda old: np.save(old / "bucket_weights.npy", -np.arange(16.0)),
            DamagedIndexError,
            "levels are damaged",
        ),
        ("fast-plaid", lambda old: (old / "metadata.json").write_text("null"), DamagedIndexError, "holds a NoneType"),
        ("fast-plaid", lambda old: (old / "metadata.json").write_text("[" * 10**5), DamagedIndexError, "is no JSON"),
        ("fast-plaid", lambda old: (old / "doclens.1.json").write_text(f"[{2**40}]"), DamagedIndexError, "no number of tokens"),
        (
            "Stanford ColBERT",
            lambda old: torch.save(torch.ones(8, 32, dtype=torch.bfloat16), old / "centroids.pt"),
            DamagedIndexError,
            "of a kind that was not expected",
        ),
        (
            "RAGatouille",
            lambda old: (old / "collection.json").write_text("[1, 2, 3, 4, 5, 6, 7]"),
            DamagedIndexError,
            "no text",
        ),
        (
            "RAGatouille",
            lambda old: (old / "docid_metadata_map.json").write_text('{"cats": 1}'),
            DamagedIndexError,
            "no object",
        ),
        ("fast-plaid", lambda old: np.save(old / "0.codes.npy", np.full(20, -1)), DamagedIndexError, "names a centroid"),
        ("fast-plaid", lambda old: (old / "0.codes.npy").write_bytes(b"\x93NUMPY"), UnsupportedIndexError, "damaged"),
        ("Stanford ColBERT", lambda old: (old / "buckets.pt").unlink(), DamagedIndexError, "buckets.pt is missing"),
        ("Stanford ColBERT", lambda old: torch.save({}, old / "buckets.pt"), DamagedIndexError, "no cutoffs and weights"),
        (
            "Stanford ColBERT",
            lambda old: torch.save([1], old / "centroids.pt"),
            DamagedIndexError,
            "holds a list where a tensor",
        ),
        (
            "Stanford ColBERT",
            lambda old: (old / "1.codes.pt").write_bytes(b"x"),
            UnsupportedIndexError,
            "1.codes.pt is damaged",
        ),
        ("RAGatouille", lambda old: (old / "collection.json").unlink(), DamagedIndexError, "collection.json is missing"),
        ("RAGatouille", lambda old: (old / "collection.json").write_text('["x"]'), DamagedIndexError, "its collection has 1"),
    ],
)
def test_what_is_wrong_with_the_other_index_is_named(tmp_path, kind, break_it, error, message):
    WRITERS[kind](tmp_path / "old")
    break_it(tmp_path / "old")
    with pytest.raises(error, match=message):
        Index.convert(read_foreign_index(tmp_path / "old"), tmp_path / "new.idx")


class Hostile:
    def __reduce__(self):
        return (print, ("this code must not run",))


@pytest.mark.parametrize("name", ["centroids.pt", "buckets.pt", "0.codes.pt", "1.residuals.pt"])
def test_a_pt_file_that_would_run_code_is_refused(tmp_path, name, capsys):
    write_stanford_index(tmp_path / "old")
    torch.save(Hostile(), tmp_path / "old" / name)
    with pytest.raises(UnsupportedIndexError, match="holds more than tensors and is not read for safety"):
        Index.convert(read_foreign_index(tmp_path / "old"))
    (tmp_path / "old" / name).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UnsupportedIndexError, match="not read for safety"):
        Index.convert(read_foreign_index(tmp_path / "old"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["centroids.npy", "0.codes.npy"])
def test_an_npy_file_that_would_run_code_is_refused(tmp_path, name, capsys):
    write_fast_plaid_index(tmp_path / "old")
    np.save(tmp_path / "old" / name, np.array([Hostile()], object), allow_pickle=True)
    with pytest.raises(UnsupportedIndexError, match="not read for safety"):
        Index.convert(read_foreign_index(tmp_path / "old"))
    assert capsys.readouterr().out == ""


def test_nothing_is_left_of_an_import_that_failed(tmp_path):
    write_stanford_index(tmp_path / "old")
    (tmp_path / "old" / "1.codes.pt").unlink()
    with pytest.raises(DamagedIndexError):
        Index.convert(read_foreign_index(tmp_path / "old"), tmp_path / "new.idx")
    assert not (tmp_path / "new.idx").exists()
    shutil.rmtree(tmp_path / "old")


@pytest.mark.peer
@pytest.mark.parametrize(("dim", "nbits"), [(32, 1), (32, 2), (32, 4), (128, 2)])
def test_colbert_ai_decodes_the_same_vectors(tmp_path, dim, nbits):
    """The fixture is what colbert-ai would read: its own codec gives the vectors that we give."""
    residual = pytest.importorskip(
        "colbert.indexing.codecs.residual", reason="needs colbert-ai, which wants an environment of its own"
    )
    write_stanford_index(tmp_path / "old", dim=dim, nbits=nbits)
    load = lambda name: torch.load(tmp_path / "old" / name, weights_only=True)  # noqa: E731
    config = SimpleNamespace(dim=dim, nbits=nbits, total_visible_gpus=0, rank=0)
    cutoffs, weights = load("buckets.pt")
    codec = residual.ResidualCodec(config, load("centroids.pt"), load("avg_residual.pt"), cutoffs, weights)
    theirs = [
        codec.decompress(codec.Embeddings(load(f"{number}.codes.pt"), load(f"{number}.residuals.pt"))) for number in (0, 1)
    ]
    ours = Index.convert(read_foreign_index(tmp_path / "old")).embeddings(["0", "1", "2", "3", "4", "6"])
    np.testing.assert_allclose(np.concatenate(ours), torch.cat(theirs).float().numpy(), atol=1e-3)
