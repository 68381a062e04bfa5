"""The command line, ``colbert``. The only module that prints."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core.errors import ColBERTError, MissingExtraError
from colbert_core.index import Index
from colbert_core.rerank import Reranker
from colbert_core.search import check_count
from colbert_core.types import Hit, Passage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from colbert_core.encoder import Encoder

_SUFFIXES = (".txt", ".md", ".jsonl")

_QUICKSTART = """\
Index a collection in memory, ask it questions, and print the prompt that an LLM would get from a LangChain RAG chain.
Without --files it does so over a small collection that comes with the package, a third of it about Studio Ghibli.
"""

_RERANK = """\
Read passages from FILE or standard input, one per line, and print them best first. A line is plain text, or a JSON object
with "text" and optionally "id" and "metadata". Lines without an id are named by their number, from 1.
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
    quickstart.add_argument("--files", type=Path, metavar="DIR", help=f"index the {', '.join(_SUFFIXES)} files below DIR")
    quickstart.add_argument("--ask", action="append", metavar="QUESTION", help="ask this instead (may be repeated)")
    quickstart.add_argument("-k", type=int, default=3, help="passages per question (default: 3)")
    quickstart.set_defaults(run=_quickstart)

    rerank = commands.add_parser("rerank", parents=[common], help="order passages by a query", description=_RERANK)
    rerank.add_argument("query")
    rerank.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: standard input")
    rerank.add_argument("--top-n", type=int, metavar="N", help="print the best N (default: all)")
    rerank.set_defaults(run=_rerank)

    inspect = commands.add_parser("inspect", help="show how a model reads texts", description=_INSPECT)
    inspect.add_argument("model", nargs="?", help="checkpoint folder, .dnn file or hub name (default: the model in the box)")
    _add_device(inspect)
    inspect.add_argument("--json", action="store_true", help="print a JSON object for programs")
    inspect.set_defaults(run=_inspect)
    return parser


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
    passages = _demo_passages() if options.files is None else list(_read_files(options.files, encoder))
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
        passages = list(_read_passages(_read_text(options.file).split("\n"), str(options.file)))
    hits = Reranker(_encoder(options)).rank(options.query, passages, options.top_n, progress=False if options.quiet else None)
    for hit in hits:
        print(json.dumps(_as_json(hit), ensure_ascii=False) if options.json else _as_line(hit))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    encoder = _encoder(options)
    print(json.dumps(encoder.describe(), ensure_ascii=False) if options.json else repr(encoder))
    return 0


def _encoder(options: argparse.Namespace) -> Encoder:
    from colbert_core.encoder import Encoder

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


def _read_files(folder: Path, encoder: Encoder) -> Iterator[Passage]:
    """Passages of every readable file below a folder, named path#n."""
    if not folder.is_dir():
        raise ValueError(f"--files {folder} is not a folder.")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)  # .venv, .git
    )
    if not files:
        raise ValueError(f"--files {folder} holds no {', '.join(_SUFFIXES)} file.")
    for path in files:
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() == ".jsonl":
            texts = [(line.text, line.metadata) for line in _read_passages(_read_text(path).split("\n"), str(path))]
        else:
            texts = [(_read_text(path), {})]
        parts = ((part.text, kept) for text, kept in texts for part in encoder.split(text, name))
        for number, (part, kept) in enumerate(parts, 1):
            yield Passage(f"{name}#{number}", part, {"source": name, **kept})


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it first.") from None


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
    }


def _as_line(hit: Hit) -> str:
    text = " ".join(hit.text.split())
    return (
        f"{hit.rank:>4}. {hit.score:6.2f}  {hit.relevance:.3f}  [{hit.passage.id}] {text[:140]}{'…' if len(text) > 140 else ''}"
    )


def _silent(*_: object) -> None:
    """What is said to a person when a program listens."""


if __name__ == "__main__":
    sys.exit(main())
