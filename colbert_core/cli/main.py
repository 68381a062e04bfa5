"""The command line, ``colbert``. The only module that prints."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from dataclasses import asdict
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count
from colbert_core.cli.training_options import add_commands
from colbert_core.cluster import Plan, Rates, ShardedIndex, build, is_cluster, measured_rates, plan
from colbert_core.errors import ColBERTError, MissingExtraError, PartialAddError
from colbert_core.evidence.evidence import as_page
from colbert_core.index.foreign import read_foreign_index
from colbert_core.index.index import Index
from colbert_core.rerank import Reranker
from colbert_core.storage.store import made_aside
from colbert_core.text.documents import SUFFIXES, TEXTS, find_files, read_collection, read_file, read_text
from colbert_core.types import Hit, Passage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from colbert_core.index.reports import IndexStats
    from colbert_core.model.encoder import Encoder

_QUICKSTART = """\
Index a collection in memory, ask it questions, and print the prompt that an LLM would get from a LangChain RAG chain.
Without --files it does so over a small collection that comes with the package, a third of it about Studio Ghibli.
"""

_RERANK = """\
Read passages from FILE or standard input, one per line, and print them best first. A line is plain text, or a JSON object
with "text" and optionally "id" and "metadata". Lines without an id are named by their number, from 1.
"""

_INDEX = f"""\
Make an index folder of files: {", ".join(SUFFIXES)}, or folders of them. It is there once all of it is.
Text and Markdown are cut into passages, which are named FILE#1, FILE#2 and so on, by the path as it was given. A JSON line, a
line of tab-separated values (id, text, title; or a first line of names) and a Parquet row is a passage with "text" and
optionally "id" or "_id", "title" and "metadata"; long ones are cut as well.
"""

_ADD = """\
Add files to an index, as `colbert index` does. What is there already under the same name is replaced, whole files and long
records with all their pieces. Records that a file no longer has stay; `colbert delete` removes them.
"""

_IMPORT = """\
Make an index folder of one that Stanford ColBERT, RAGatouille or fast-plaid built, with its codes and residuals: nothing is
encoded again. RAGatouille keeps the texts; for the others name the collection they were made of.
"""

_EXPLAIN = """\
Show the passages that a search finds with the words that match the query: in colour on a terminal (brackets elsewhere), or as
an HTML page that needs nothing else. With --id it shows those passages, found or not.
"""

_CLUSTER_BUILD = f"""\
Make a sharded index of files with the machines of a Ray cluster: {", ".join(SUFFIXES)}, in a folder or an object storage such
as s3://bucket/folder. Called again after an interruption it goes on with the shards that are missing. `colbert search` and
`add`, `delete` and `stats` take the folder like any other index.
"""

_PLAN = """\
Print what a collection needs on one machine and on several: bytes on disk and in memory, hours to build, milliseconds of a
search. The rates are those of one machine that was measured; --measure measures this one first, in some ten seconds.
"""

_VERIFY = """\
Check every checksum of an index, that its parts fit together, and what part of the 10 best passages a plain search finds.
The exit code is 1 if something is wrong.
"""

_INSPECT = """\
Print the recipe of a checkpoint as it was read from its files: backbone, lengths, markers with their ids, augmentation,
skipped tokens, similarity, and the tokens of an example.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 done, 1 an error that is explained on standard error, 2 wrong usage (argparse), 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    for stream, encoding in ((sys.stdin, "utf-8-sig"), (sys.stdout, "utf-8")):
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding=encoding)  # pipes and files; on Windows they default to an old code page
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; nothing more must reach its pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ColBERTError, ValueError, TypeError, OSError) as error:
        print(f"colbert: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("colbert: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", help="checkpoint folder or hub name (default: the model in the box)")
    _add_device(common)
    common.add_argument("--json", action="store_true", help="print JSON lines for programs")
    common.add_argument("--quiet", action="store_true", help="show no progress bars")

    parser = argparse.ArgumentParser(prog="colbert", description="Late-interaction (ColBERT) retrieval and reranking.")
    parser.add_argument("--version", action="version", version=metadata.version("colbert-retrievers"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    quickstart = commands.add_parser("quickstart", parents=[common], help="see it work in a minute", description=_QUICKSTART)
    quickstart.add_argument("--files", type=Path, metavar="DIR", help=f"index the {', '.join(SUFFIXES)} files below DIR")
    quickstart.add_argument("--ask", action="append", metavar="QUESTION", help="ask this instead (may be repeated)")
    quickstart.add_argument("-k", type=int, default=3, help="passages per question (default: 3)")
    quickstart.set_defaults(run=_quickstart)

    rerank = commands.add_parser("rerank", parents=[common], help="order passages by a query", description=_RERANK)
    rerank.add_argument("query")
    rerank.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: standard input")
    rerank.add_argument("--top-n", type=int, metavar="N", help="print the best N (default: all)")
    rerank.set_defaults(run=_rerank)

    _add_index_commands(commands, common)
    quiet = argparse.ArgumentParser(add_help=False)
    quiet.add_argument("--quiet", action="store_true", help="show no progress bars")

    def group(name: str, help_: str) -> Any:
        made = commands.add_parser(name, help=help_, description=help_)
        return _command(made.add_subparsers(required=True, metavar="COMMAND"))

    add_commands(_command(commands), group, quiet)

    inspect = commands.add_parser("inspect", help="show how a model reads texts", description=_INSPECT)
    inspect.add_argument("model", nargs="?", help="checkpoint folder, .dnn file or hub name (default: the model in the box)")
    _add_device(inspect)
    inspect.add_argument("--json", action="store_true", help="print a JSON object for programs")
    inspect.set_defaults(run=_inspect)
    return parser


def _command(commands: Any) -> Any:
    """What adds a command."""

    def command(name: str, run: Any, help_: str, *parents: Any, about: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, parents=parents, help=help_, description=about or help_)
        parser.set_defaults(run=run)
        return parser

    return command


def _add_index_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    quiet = argparse.ArgumentParser(add_help=False)
    quiet.add_argument("--quiet", action="store_true", help="show no progress bars")
    with_json = argparse.ArgumentParser(add_help=False)
    with_json.add_argument("--json", action="store_true", help="print JSON for programs")

    command = _command(commands)
    index = command("index", _index, "make an index of files", common, about=_INDEX)
    index.add_argument("files", nargs="+", type=Path, metavar="FILES")
    index.add_argument("--out", required=True, type=Path, metavar="INDEX", help="the folder to make")
    index.add_argument("--nbits", type=int, help="bits per component: 1, 2, 4, 8, or 32 for uncompressed (default: 4)")
    index.add_argument("--overwrite", action="store_true", help="empty the index that is there already")

    search = command("search", _search, "search an index", common)
    search.add_argument("index", type=Path)
    search.add_argument("query")
    search.add_argument("-k", type=int, default=10, help="passages to find (default: 10)")
    search.add_argument("--where", metavar="JSON", help="""only passages with such metadata: '{"year": {"$gte": 2020}}'""")
    search.add_argument("--exact", action="store_true", help="score every passage")
    search.add_argument("--explain", action="store_true", help="show which words matched")

    explain = command("explain", _explain, "show which words of passages match a query", common, about=_EXPLAIN)
    explain.add_argument("index", type=Path)
    explain.add_argument("query")
    explain.add_argument("-k", type=int, default=3, help="passages to find (default: 3)")
    explain.add_argument("--id", action="append", metavar="ID", help="this passage instead (may be repeated)")
    explain.add_argument("--html", type=Path, metavar="FILE", help="write an HTML page")

    add = command("add", _add, "add files to an index", common, about=_ADD)
    add.add_argument("index", type=Path)
    add.add_argument("files", nargs="+", type=Path, metavar="FILES")

    delete = command("delete", _delete, "delete passages from an index", with_json)
    delete.add_argument("index", type=Path)
    delete.add_argument("ids", nargs="*", metavar="ID")
    delete.add_argument("--where", metavar="JSON", help="every passage with such metadata")

    command("stats", _stats, "show the figures of an index", with_json).add_argument("index", type=Path)
    command("verify", _verify, "check an index for damage", with_json, quiet, about=_VERIFY).add_argument("index", type=Path)
    compact = command("compact", _compact, "put an index into one piece and give room back", with_json, quiet)
    compact.add_argument("index", type=Path)

    _add_cluster_commands(commands, with_json)

    import_ = command("import", _import, "make an index of another library's", common, about=_IMPORT)
    import_.add_argument("old", type=Path, metavar="OLD", help="its folder")
    import_.add_argument("--out", required=True, type=Path, metavar="INDEX", help="the folder to make")
    import_.add_argument("--collection", type=Path, metavar="FILE", help="its texts by number, .tsv or .jsonl")


def _add_cluster_commands(commands: Any, with_json: argparse.ArgumentParser) -> None:
    about = "work on several machines"
    group = _command(
        commands.add_parser("cluster", help=about, description=about).add_subparsers(required=True, metavar="COMMAND")
    )
    made = group("build", _cluster_build, "make a sharded index of files", about=_CLUSTER_BUILD)
    made.add_argument("source", metavar="SOURCE", help="a file or folder, or its address in an object storage")
    made.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to make, which every node sees")
    made.add_argument("--shards", required=True, type=int, metavar="N", help="parts; at least as many as workers")
    made.add_argument("--model", help="checkpoint folder that every node sees, or hub name (default: the model in the box)")
    made.add_argument("--nbits", type=int, help="bits per component: 1, 2, 4, 8, or 32 for uncompressed (default: 4)")
    made.add_argument("--address", help="of the Ray cluster, host:port (default: the one at hand, or this machine)")
    made.add_argument("--workers", type=int, metavar="N", help="that encode (default: as many as there is room for)")
    made.add_argument("--cpus", type=float, default=1, metavar="N", help="cores of each worker (default: 1)")
    made.add_argument("--gpus", type=float, default=0, metavar="N", help="GPUs of each worker, such as 0.5 (default: 0)")
    made.add_argument("--json", action="store_true", help="print JSON for programs")
    made.add_argument("--quiet", action="store_true", help="show no progress bars")

    planned = _command(commands)("plan", _plan, "say what a collection will need", with_json, about=_PLAN)
    planned.add_argument("--passages", required=True, type=float, metavar="N", help="such as 8.8e6")
    planned.add_argument("--tokens-per-passage", required=True, type=float, metavar="N", help="vectors of one, such as 68")
    planned.add_argument("--nbits", type=int, default=4, help="bits per component (default: 4)")
    planned.add_argument("--dim", type=int, default=128, help="components of a vector (default: 128)")
    planned.add_argument(
        "--nodes", type=int, action="append", metavar="N", help="machines (may be repeated; default: 1, 2, 4, 8)"
    )
    planned.add_argument("--cores", type=int, default=8, metavar="N", help="of each machine (default: 8)")
    planned.add_argument("--measure", action="store_true", help="measure the rates of this machine first")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best one present)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")


def _quickstart(options: argparse.Namespace) -> int:
    if options.files is not None and not options.ask:
        raise ValueError('--files needs a question: add --ask "..."')
    check_count(options.k, "-k")
    say = _silent if options.json else print
    progress = False if options.quiet else None
    encoder = _encoder(options)
    passages = _demo_passages() if options.files is None else list(_read_below(options.files, encoder.split))
    questions = options.ask or [line["question"] for line in _read_demo("questions.jsonl")]
    index = Index.create(None, encoder)
    index.add(passages, progress=progress)
    say(f"{len(index)} passages indexed in memory with the model {encoder.name!r}\n")

    answers = index.search_many(questions, options.k)
    for question, hits in zip(questions, answers, strict=True):
        if options.json:
            print(json.dumps({"question": question, "hits": [_as_json(hit) for hit in hits]}, ensure_ascii=False))
        say(question)
        for hit in hits:
            say(_as_line(hit))
        say()
    if not options.json:
        _show_chain(index, questions[0], options.k)
    return 0


def _show_chain(index: Index, question: str, k: int) -> None:
    """Run a LangChain RAG chain up to the LLM and print what the LLM would read."""
    try:
        from langchain_core.prompts import ChatPromptTemplate
        from langchain_core.runnables import RunnablePassthrough

        from langchain_colbert import ColBERTRetriever
    except ImportError as error:
        raise MissingExtraError(f"The RAG chain needs LangChain ({error}): pip install 'langchain-core>=1.4.4,<2'") from error

    prompt = ChatPromptTemplate.from_template(
        "Answer the question from the context only.\n\nContext:\n{context}\n\nQuestion: {question}"
    )
    retriever = ColBERTRetriever(index=index, k=k)
    context = retriever | (lambda documents: "\n\n".join(document.page_content for document in documents))
    chain = {"context": context, "question": RunnablePassthrough()} | prompt
    print("The same as a LangChain RAG chain. This is the exact prompt an LLM would get:\n")
    print("\n".join(f"    {line}".rstrip() for line in chain.invoke(question).to_string().splitlines()))
    print("\nPlug in any chat model with one line:\n")
    print("    answer = (chain | chat_model | StrOutputParser()).invoke(question)\n")


def _rerank(options: argparse.Namespace) -> int:
    if options.file is None:
        passages = list(_read_passages(sys.stdin.readlines(), "standard input"))
    else:
        passages = list(_read_passages(read_text(options.file).split("\n"), str(options.file)))
    hits = Reranker(_encoder(options)).rank(options.query, passages, options.top_n, progress=False if options.quiet else None)
    for hit in hits:
        print(json.dumps(_as_json(hit), ensure_ascii=False) if options.json else _as_line(hit))
    return 0


def _index(options: argparse.Namespace) -> int:
    files = _find(options.files)
    encoder = _encoder(options)
    with (
        made_aside(options.out, overwrite=options.overwrite) as aside,
        Index.create(aside, encoder, nbits=options.nbits) as index,
    ):
        try:
            added = index.add(_read_all(files, encoder.split), progress=False if options.quiet else None)
        except PartialAddError as error:  # nothing of this index will be left
            raise error.__cause__ or error from None
        stats = index.stats()
    return _say_added(len(added), stats, options)


def _add(options: argparse.Namespace) -> int:
    files = _find(options.files)
    with _opened(options) as index:
        encoder: Any = index.encoder
        if not hasattr(encoder, "split"):
            raise ValueError(f"The encoder {encoder!r:.80} cannot split files; add passages in Python.")
        added = set(index.add(_read_all(files, encoder.split), progress=False if options.quiet else None))
        for path in files:  # what a file held before and no longer does
            index.delete(
                passage_id
                for passage_id in index.ids({"source": path.as_posix()})
                if passage_id not in added and _is_piece(passage_id, path, added)
            )
        stats = index.stats()
    return _say_added(len(added), stats, options)


def _is_piece(passage_id: str, path: Path, added: set[str]) -> bool:
    """Whether a passage is a piece of something that has just been added: of a text file, or of a record."""
    whole, _, number = passage_id.rpartition("#")
    if not number.isdecimal():
        return f"{passage_id}#1" in added  # a record that was short
    return (path.suffix.lower() in TEXTS and whole == path.as_posix()) or whole in added or f"{whole}#1" in added


def _say_added(n_added: int, stats: IndexStats, options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps({"added": n_added, **_as_dict(stats)}))
    else:
        print(f"{n_added} passages added. {_as_sentence(stats)}")
    return 0


def _search(options: argparse.Namespace) -> int:
    with _opened(options) as index:
        hits = index.search(options.query, options.k, where=_where(options), exact=options.exact, evidence=options.explain)
    for hit in hits:
        print(json.dumps(_as_json(hit), ensure_ascii=False) if options.json else _as_line(hit))
    return 0


def _explain(options: argparse.Namespace) -> int:
    with _opened(options) as index:
        if options.id:
            found = [index.explain(options.query, passage_id) for passage_id in options.id]
        else:
            hits = index.search(options.query, options.k, evidence=True)
            found = [hit.evidence for hit in hits if hit.evidence is not None]
    if options.html is not None:
        options.html.write_text(as_page(found, options.query), encoding="utf-8")
        print(json.dumps({"written": str(options.html)}) if options.json else f"{options.html} has {len(found)} passages.")
        return 0
    for number, one in enumerate(found, 1):
        if options.json:
            print(json.dumps({"id": one.passage_id, **one.to_dict()}, ensure_ascii=False))
            continue
        missing = f"  not found: {_printable(', '.join(one.unmatched))}" if one.unmatched else ""
        print(f"{number:>4}. {one.score:6.2f}  {one.relevance:.3f}  [{_printable(one.passage_id)}]{missing}")
        print(f"      {one.to_terminal(color=_has_colors())}")
    return 0


def _has_colors() -> bool:
    """Whether standard output shows them; https://no-color.org turns them off."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _delete(options: argparse.Namespace) -> int:
    where = _where(options)
    if (where is None) == (not options.ids):
        raise ValueError("Name the passages by their ids, or by --where; one of them.")
    with _opened_with(options.index) as index:
        gone = index.delete(options.ids) if where is None else index.delete_where(where)
    print(json.dumps({"deleted": gone}) if options.json else f"{gone} passages deleted.")
    return 0


def _stats(options: argparse.Namespace) -> int:
    with _opened_with(options.index) as index:
        about = _as_dict(index.stats())
    print(json.dumps(about) if options.json else "\n".join(f"{name.replace('_', ' '):16} {about[name]}" for name in about))
    return 0


def _verify(options: argparse.Namespace) -> int:
    with Index.open(options.index) as index:
        found = index.verify(progress=False if options.quiet else None)
    if options.json:
        print(json.dumps({"ok": found.ok, **asdict(found)}))
    elif not found.ok:
        print("\n".join(found.problems))
    else:
        recall = "" if found.recall is None else f" A search finds {found.recall:.1%} of the 10 best ({found.queries} samples)."
        print(f"No damage.{recall}")
    return 0 if found.ok else 1


def _compact(options: argparse.Namespace) -> int:
    with Index.open(options.index) as index:
        index.compact(progress=False if options.quiet else None)
        stats = index.stats()
    print(json.dumps(_as_dict(stats)) if options.json else _as_sentence(stats))
    return 0


def _import(options: argparse.Namespace) -> int:
    texts = None if options.collection is None else read_collection(options.collection)
    foreign = read_foreign_index(options.old, texts)
    encoder = _named_encoder(options)
    with Index.convert(foreign, options.out, encoder, progress=False if options.quiet else None) as index:
        stats = index.stats()
    if texts is None and foreign.kind != "RAGatouille":
        print(f"colbert: {foreign.kind} keeps no texts, so the passages have none; --collection names a file.", file=sys.stderr)
    if options.json:
        print(json.dumps({"kind": foreign.kind, **_as_dict(stats)}))
    else:
        print(f"Imported from {foreign.kind}. {_as_sentence(stats)}")
    return 0


def _cluster_build(options: argparse.Namespace) -> int:
    settings = build(
        options.source,
        options.out,
        shards=options.shards,
        encoder=options.model,
        nbits=options.nbits,
        address=options.address,
        workers=options.workers,
        num_cpus=options.cpus,
        num_gpus=options.gpus,
        progress=False if options.quiet else None,
    )
    if options.json:
        print(json.dumps({"passages": settings.passages, "shards": settings.shards, "out": str(options.out)}))
    else:
        shards = "1 shard" if settings.shards == 1 else f"{settings.shards} shards"
        print(f"{settings.passages} passages in {shards} in {options.out}.")
    return 0


def _plan(options: argparse.Namespace) -> int:
    rates = Rates()
    if options.measure:
        from colbert_core.model.encoder import Encoder

        rates = measured_rates(Encoder.from_pretrained(), [passage.text for passage in _demo_passages()])
    plans = [
        plan(
            options.passages,
            options.tokens_per_passage,
            dim=options.dim,
            nbits=options.nbits,
            nodes=nodes,
            cores=options.cores,
            rates=rates,
        )
        for nodes in options.nodes or (1, 2, 4, 8)
    ]
    if options.json:
        print(json.dumps({"rates": asdict(rates), "plans": [asdict(one) for one in plans]}))
        return 0
    first = plans[0]
    print(
        f"{first.passages:,} passages, {first.tokens:,} tokens, dim {options.dim}, {first.nbits} bits, "
        f"{first.centroids:,} centroids: {first.vector_bytes / first.tokens:.1f} bytes a token.\n"
    )
    head = ("nodes", "shards", "disk GB", "memory GB", "of each node", "build h", "search ms")
    print("  ".join(f"{name:>12}" for name in head))
    for one in plans:
        print("  ".join(f"{cell:>12}" for cell in _cells(one)))
    print(
        f"\nNodes of {first.cores} cores; a core encodes {rates.encode:,.0f} tokens a second. Rates "
        f"{'measured here' if options.measure else 'of the machine in the docs; --measure takes those of this one'}."
    )
    return 0


def _cells(one: Plan) -> tuple[str, ...]:
    disk, memory = one.disk_bytes / 1e9, one.memory_bytes / 1e9
    each = memory / one.nodes
    return (
        f"{one.nodes}",
        f"{one.shards}",
        f"{disk:,.1f}",
        f"{memory:,.1f}",
        f"{each:,.1f}",
        f"{one.build_hours:,.1f}",
        f"{one.latency_ms:,.0f}",
    )


def _opened(options: argparse.Namespace) -> Index | ShardedIndex:
    return _opened_with(options.index, _named_encoder(options))


def _opened_with(path: Path, encoder: Encoder | None = None) -> Index | ShardedIndex:
    """The index in a folder, in one piece or in shards."""
    return ShardedIndex.open(path, encoder) if is_cluster(path) else Index.open(path, encoder)


def _named_encoder(options: argparse.Namespace) -> Encoder | None:
    """The model of --model; without it, the one that the index names."""
    if not options.model and (options.device or options.trust_remote_code):
        raise ValueError("--device and --trust-remote-code go with --model; name the model that the index was made with.")
    return _encoder(options) if options.model else None


def _where(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.where is None:
        return None
    try:
        where = json.loads(options.where)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--where is no JSON: {error}") from None
    if not isinstance(where, dict):
        raise ValueError(f'--where is a JSON object such as {{"year": 2024}}, got {options.where:.80}')
    return where


def _as_dict(stats: IndexStats) -> dict[str, Any]:
    return {**asdict(stats), "bytes_per_token": round(stats.bytes_per_token, 2)}


def _as_sentence(stats: IndexStats) -> str:
    return f"The index has {stats.passages} passages of {stats.tokens} tokens, {stats.bytes_per_token:.1f} bytes each."


def _inspect(options: argparse.Namespace) -> int:
    encoder = _encoder(options)
    print(json.dumps(encoder.describe(), ensure_ascii=False) if options.json else repr(encoder))
    return 0


def _encoder(options: argparse.Namespace) -> Encoder:
    from colbert_core.model.encoder import Encoder

    return Encoder.from_pretrained(options.model, device=options.device, trust_remote_code=options.trust_remote_code)


def _read_passages(lines: Sequence[str], source: str) -> Iterator[Passage]:
    """Passages of plain or JSON lines; blank lines are passed over."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        try:
            record: dict[str, Any] = json.loads(text) if text.startswith("{") else {"text": text}
            json.dumps(record, ensure_ascii=False, allow_nan=False).encode()  # what --json prints again must be valid
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Line {number} of {source} is no valid text or JSON object: {error}") from None
        if "text" not in record:
            raise ValueError(f'Line {number} of {source} has no "text"; its keys are {", ".join(record) or "none"}.')
        name, metadata_ = record.get("id"), record.get("metadata")
        try:
            yield Passage(str(number if name is None else name), record["text"], {} if metadata_ is None else metadata_)
        except (ValueError, TypeError) as error:
            raise ValueError(f"Line {number} of {source}: {error}") from None


def _find(paths: list[Path]) -> list[Path]:
    """The files below these paths, each once."""
    return list(dict.fromkeys(file for path in paths for file in find_files(path)))


def _read_all(files: list[Path], split: Any) -> Iterator[Passage]:
    for path in files:
        yield from read_file(path, path.as_posix(), split)


def _read_below(folder: Path, split: Any) -> Iterator[Passage]:
    """The passages of the files of a folder, named from there on."""
    for path in find_files(folder):
        yield from read_file(path, path.name if path == folder else path.relative_to(folder).as_posix(), split)


def _demo_passages() -> list[Passage]:
    return [
        Passage(line["id"], f"{line['title']}. {line['text']}", {"title": line["title"]})
        for line in _read_demo("passages.jsonl")
    ]


def _read_demo(name: str) -> list[dict[str, Any]]:
    lines = resources.files("colbert_core").joinpath("quickstart", name).read_text(encoding="utf-8").strip().split("\n")
    return [json.loads(line) for line in lines]


def _as_json(hit: Hit) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "id": hit.passage.id,
        "score": hit.score,
        "relevance": hit.relevance,
        "span": hit.span,
        "text": hit.passage.text,
        "metadata": hit.passage.metadata,
        **({} if hit.evidence is None else {"evidence": hit.evidence.to_dict()}),
    }


def _as_line(hit: Hit) -> str:
    if hit.evidence is not None:
        shown = hit.evidence.to_terminal(color=_has_colors())
    else:
        text = _printable(" ".join(hit.text.split()))
        shown = f"{text[:140]}{'…' if len(text) > 140 else ''}"
    return f"{hit.rank:>4}. {hit.score:6.2f}  {hit.relevance:.3f}  [{_printable(hit.passage.id)}] {shown}"


def _printable(text: str) -> str:
    """The text without what would move a terminal's cursor or forge another line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _silent(*_: object) -> None:
    """What is said to a person when a program listens."""
