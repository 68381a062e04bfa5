"""Speed and faithfulness of encoding, beside sentence-transformers on the same backbone and the same texts, in one process.

    python benchmarks/encode.py passages.jsonl[.xz] [--first 128] [--model NAME] [--threads 1] [--rounds 5] [--json OUT]

The ways to encode take turns, and the medians of their time on the wall and on the CPU are printed, each also as a ratio to
sentence-transformers (``encode(output_value="token_embeddings")``, float32) of the same round. Passages are cut to what the
model reads beforehand, so that all encode the same tokens; tokenization, and for ours the head, is part of the time. Cosines
are to our float32. With several threads there are two ways more: one of our passes at a time, by one thread, and by as many
threads of PyTorch's (``set_num_threads`` of torch), which wait for each other after every operation. ``--random modernbert`` is
a model of that type with the sizes that transformers gives it, random weights, and the tokenizer of the model in the box:
speed does not ask what weights have learned. ``--busy`` keeps so many cores busy with other processes meanwhile. ``--callers``
asks short queries from so many threads at once, beside one. ``--onnx`` adds sentence-transformers with the backbone run by ONNX
Runtime in dynamic int8; it takes the packages onnx, onnxscript and onnxruntime.
"""

import argparse
import contextlib
import itertools
import json
import lzma
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from colbert_core import Encoder, set_num_threads
from colbert_core.model import forward
from colbert_core.model.checkpoint import DEFAULT_MODEL

PEER = "sentence-transformers, float32"


def read_texts(path, first):
    """The texts of the first lines of a file of JSON lines."""
    open_ = lzma.open if path.suffix == ".xz" else open
    with open_(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, first)]


def build_peer(encoder, *, onnx=0):
    """sentence-transformers over the backbone and the tokenizer of an encoder, as a function of texts.

    With ``onnx`` so many threads of ONNX Runtime run the backbone in int8.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder, format="sentence-transformers")  # only its first module, the plain backbone, is loaded
        transformer = Transformer(folder, max_seq_length=encoder.config.passage_length)
        if onnx:
            transformer.model.forward = run_by_onnx(transformer.model, Path(folder), onnx)
    model = SentenceTransformer(modules=[transformer], device=str(encoder.device)).float()
    return lambda texts: model.encode(texts, output_value="token_embeddings", show_progress_bar=False, convert_to_numpy=False)


def run_by_onnx(backbone, folder, threads):
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    backbone.float().eval().set_attn_implementation("eager")
    example = dict.fromkeys(("input_ids", "attention_mask"), torch.ones((2, 16), dtype=torch.int64))
    shapes = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in example}
    plain, int8 = folder / "plain.onnx", folder / "int8.onnx"
    torch.onnx.export(backbone, kwargs=example, f=plain, dynamo=True, dynamic_shapes=shapes, external_data=False)
    quantize_dynamic(plain, int8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(int8, options)
    return lambda **inputs: {
        "last_hidden_state": torch.from_numpy(session.run(None, {name: inputs[name].numpy() for name in example})[0])
    }


def write_random(folder, kind):
    """A checkpoint of random weights, of the sizes that transformers gives a type, for windows of 512 tokens."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(DEFAULT_MODEL)
    tokenizer.save_pretrained(folder)
    pad, cls, sep = tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = {"pad_token_id": pad, "cls_token_id": cls, "bos_token_id": cls, "sep_token_id": sep, "eos_token_id": sep}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **ids)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    Path(folder, "sentence_bert_config.json").write_text('{"max_seq_length": 512}')
    return folder


def build_ways(model, device, threads):
    """Every way to encode by its name, each a function of texts; sentence-transformers first, if it is to be had."""
    exact, default = (
        Encoder.from_pretrained(model, device=device, dtype="float32"),
        Encoder.from_pretrained(model, device=device),
    )
    ways = {}
    try:
        ways[PEER] = build_peer(exact)
    except Exception as error:
        print(f"without sentence-transformers: {error}")
    ways["colbert_core, float32"] = exact.encode_passages
    ways[f"colbert_core, {default.describe()['dtype']} (default)"] = default.encode_passages
    if threads > 1:
        ways["one pass at a time, 1 thread"] = one_pass_at_a_time(default, 1, threads)
        ways[f"one pass at a time, {threads} of torch's"] = one_pass_at_a_time(default, threads, threads)
    return exact, default, ways


def one_pass_at_a_time(encoder, n, before):
    """Encode as a loop over batches does, each by ``n`` threads of PyTorch's."""

    def encode(texts):
        torch.set_num_threads(n)
        set_num_threads(1)
        with patch.object(forward, "one_torch_thread", contextlib.nullcontext):
            encoder.encode_passages(texts)
        set_num_threads(before)
        torch.set_num_threads(before)

    return encode


def ask_at_once(encoder, queries, n_callers):
    """Queries a second and the 50th and 95th percentile of their milliseconds, asked by ``n_callers`` threads."""
    waiting, seconds = list(queries), []

    def call():
        with contextlib.suppress(IndexError):
            while True:
                query, start = waiting.pop(), time.perf_counter()
                encoder.encode_queries([query])
                seconds.append(time.perf_counter() - start)

    callers = [threading.Thread(target=call) for _ in range(n_callers)]
    start = time.perf_counter()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return len(queries) / (time.perf_counter() - start), *(np.percentile(seconds, [50, 95]) * 1000)


def measure_callers(encoder, texts, n_callers, rounds):
    """Print how many short queries a second one caller and several get, in turn."""
    queries = [" ".join(text.split()[at : at + 8]) for text in texts for at in (0, 20, 40)]
    ways = {
        "1 caller": (encoder, 1),
        f"{n_callers} callers": (encoder, n_callers),
        "1 caller, for_many_callers": (encoder.for_many_callers(), 1),
        f"{n_callers} callers, for_many_callers": (encoder.for_many_callers(), n_callers),
    }
    found = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (asked, n) in ways.items():
            found[way].append(ask_at_once(asked, queries, n))
    for way, results in found.items():
        rate, p50, p95 = np.median(results, axis=0)
        ratio = np.median([many[0] / one[0] for one, many in zip(found["1 caller"], results, strict=True)])
        print(f"{way:32} {rate:6.0f} queries/s  {ratio:.2f} x  p50 {p50:.1f} ms  p95 {p95:.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path, help="JSON lines with text, plain or compressed with xz")
    parser.add_argument("--first", type=int, default=128, help="only so many passages")
    parser.add_argument("--model", help="default: the model in the box")
    parser.add_argument("--random", metavar="TYPE", help="random weights instead, such as of modernbert")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--busy", type=int, default=0, help="processes that keep a core busy meanwhile")
    parser.add_argument("--callers", type=int, default=0, help="threads that ask short queries at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="on another than cpu, the time on the wall counts")
    parser.add_argument("--onnx", action="store_true", help="ONNX Runtime's int8 too, if it is installed")
    parser.add_argument("--json", type=Path, help="where to write the figures too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model if options.random is None else write_random(folder, options.random)
        exact, default, ways = build_ways(model, options.device, options.threads)
    with contextlib.ExitStack() as stack:
        for _ in range(options.busy):
            stack.callback(subprocess.Popen([sys.executable, "-c", "while True: pass"]).kill)
        measure(options, exact, default, ways)


def measure(options, exact, default, ways):
    texts = [exact.split(text, "text")[0].text for text in read_texts(options.passages, options.first) if text.strip()]
    if options.callers:
        measure_callers(default, texts, options.callers, options.rounds)
        return
    if options.onnx:
        try:
            ways["ONNX Runtime, int8"] = build_peer(exact, onnx=options.threads)
        except Exception as error:
            print(f"without ONNX Runtime: {error}")
    wall, cpu = {name: [] for name in ways}, {name: [] for name in ways}
    for round_ in range(options.rounds + 1):
        for name, way in ways.items():
            start, start_of_cpu = time.perf_counter(), time.process_time()
            way(texts)
            if round_:  # the first round warms up
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_of_cpu)
    seconds = cpu if options.device == "cpu" and options.threads == 1 else wall

    expected, found = exact.encode_passages(texts).vectors, default.encode_passages(texts).vectors
    cosines = (expected * found).sum(axis=1)
    n_tokens = sum(len(one.ids) for one in exact._inputs.passages(texts))
    figures = {
        "passages": len(texts),
        "tokens": n_tokens,
        "threads": options.threads,
        "busy": options.busy,
        "device": options.device,
        "cosine": {"mean": cosines.mean(), "p1": np.percentile(cosines, 1), "min": cosines.min()},
        "ways": {
            name: {
                "tokens_per_second": n_tokens / statistics.median(values),
                "tokens_per_second_on_the_wall": n_tokens / statistics.median(wall[name]),
                "tokens_per_cpu_second": n_tokens / statistics.median(cpu[name]),
                "ratio": statistics.median(base / value for base, value in zip(seconds[PEER], values, strict=True))
                if PEER in seconds
                else None,
            }
            for name, values in seconds.items()
        },
    }
    print(f"{len(texts)} passages, {n_tokens} tokens, {options.threads} threads, {options.busy} busy, {options.device}")
    print(f"{'':34}  on the wall    on the CPU  ratio of {'the CPU' if seconds is cpu else 'the wall'}")
    for name, way in figures["ways"].items():
        ratio = "" if way["ratio"] is None else f"  {way['ratio']:5.2f} x"
        on_wall, on_cpu = way["tokens_per_second_on_the_wall"], way["tokens_per_cpu_second"]
        print(f"{name:34} {on_wall:9.0f} t/s {on_cpu:9.0f} t/s{ratio}")
    print("default to float32: " + ", ".join(f"{name} cosine {value:.5f}" for name, value in figures["cosine"].items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
