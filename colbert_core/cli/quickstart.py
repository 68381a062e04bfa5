"""``colbert quickstart``: an index in memory or kept, questions, and the prompt of a LangChain RAG chain."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import colbert_core
from colbert_core.cli.options import load_encoder, model_options, wants_progress
from colbert_core.cli.printing import as_json, hit_as_line, keep_silent, print_lines
from colbert_core.cli.reading import demo_passages, demo_questions, need_passages
from colbert_core.extras import import_extra
from colbert_core.paths import as_path
from colbert_core.values import hit_as_json

if TYPE_CHECKING:
    import argparse

    from colbert_core import Index
    from colbert_core.cli.options import Command

_ABOUT = """\
Index a collection in memory, or in a folder with --out, ask it questions, and print the prompt that an LLM would get from a
LangChain RAG chain. Without --files it does so over a small collection that comes with the package, a third of it about Studio
Ghibli.
"""


def add_quickstart_command(command: Command) -> None:
    """Add ``colbert quickstart``."""
    quickstart = command("quickstart", _quickstart, "see it work in a minute", model_options(), about=_ABOUT)
    quickstart.add_argument("--files", type=as_path, metavar="DIR", help="index the files below DIR")
    quickstart.add_argument("--ask", action="append", metavar="QUESTION", help="ask this instead (may be repeated)")
    quickstart.add_argument("--out", type=as_path, metavar="INDEX", help="keep the index in this folder, which must be new")
    quickstart.add_argument("-k", type=int, default=3, help="passages per question (default: 3)")


def _quickstart(options: argparse.Namespace) -> int:
    from colbert_core.checks import check_count

    if options.files is not None and not options.ask:
        raise ValueError('--files needs a question: add --ask "..."')
    check_count(options.k, "-k")
    say = keep_silent if options.json else print
    encoder = load_encoder(options)
    questions = options.ask or [record["question"] for record in demo_questions()]
    index = colbert_core.Index.create(options.out, encoder)
    if options.files is None:
        index.add(demo_passages(), progress=wants_progress(options))
    else:
        report = colbert_core.sync(options.files, index, progress=wants_progress(options))
        for problem in filter(lambda each: each.is_failure, report.problems):
            print(f"colbert: {problem.message}", file=sys.stderr)
        need_passages(index, report, [options.files])
    place = "in memory" if options.out is None else f"in {options.out}"
    say(f"{len(index)} passages indexed {place} with the model {encoder.name!r}")
    say()

    answers = index.search_many(questions, options.k)
    for question, hits in zip(questions, answers, strict=True):
        if options.json:
            print(as_json({"question": question, "hits": [hit_as_json(hit) for hit in hits]}))
        say(question)
        for hit in hits:
            say(hit_as_line(hit))
        say()
    if not options.json:
        _show_chain(index, questions[0], options.k)
    if options.out is not None:
        index.close()
        say(f"Look at it in a browser: colbert serve {shlex.quote(str(options.out))}")
    return 0


def _show_chain(index: Index, question: str, k: int) -> None:
    """Run a LangChain RAG chain up to the LLM, and print what the LLM would read."""
    for module in ("langchain_core.prompts", "langchain_core.runnables", "langchain_colbert"):
        import_extra(module, "The RAG chain", "LangChain", "'langchain-core>=1.4.4,<2'")
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnablePassthrough

    from langchain_colbert import ColBERTRetriever

    prompt = ChatPromptTemplate.from_template(
        "Answer the question from the context only.\n\nContext:\n{context}\n\nQuestion: {question}"
    )
    retriever = ColBERTRetriever(index=index, k=k, mode="maxsim")  # the passages shown above
    context = retriever | (lambda documents: "\n\n".join(document.page_content for document in documents))
    chain = {"context": context, "question": RunnablePassthrough()} | prompt
    print_lines(["The same as a LangChain RAG chain. This is the exact prompt an LLM would get:", ""])
    print_lines(f"    {line}".rstrip() for line in chain.invoke(question).to_string().splitlines())
    print_lines(["", "Plug in any chat model with one line:", ""])
    print_lines(["    answer = (chain | chat_model | StrOutputParser()).invoke(question)", ""])
