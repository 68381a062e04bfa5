"""The fingerprint of an index's encoder, and the encoder loaded at first use."""

from __future__ import annotations

import threading
import time

import pytest
from builders.encoders import WordEncoder

from colbert_core import EncoderMismatchError
from colbert_core.model.fingerprint import EncoderFingerprint, LazyEncoder, about_encoder


def fingerprint_of(encoder) -> EncoderFingerprint:
    return EncoderFingerprint.from_about({**about_encoder(encoder), "dim": encoder.dim}, "The index x")


def test_an_encoder_that_is_given_is_checked_and_never_loaded(words, monkeypatch):
    monkeypatch.setattr(EncoderFingerprint, "load", lambda fingerprint: pytest.fail("loaded"))
    lazy = LazyEncoder(fingerprint_of(words), words)
    assert lazy.loaded is lazy.get() is words
    with pytest.raises(
        EncoderMismatchError, match=r"The index x was made with the encoder 'words', of dim 64, but .* has dim 8"
    ):
        LazyEncoder(fingerprint_of(words), WordEncoder(dim=8))


def test_an_encoder_is_loaded_when_it_is_asked_for(stanford, stanford_folder):
    lazy = LazyEncoder(fingerprint_of(stanford), None)
    assert lazy.loaded is None
    encoder = lazy.get()
    assert encoder is lazy.loaded is lazy.get()
    assert encoder.origin == stanford.origin


def test_threads_that_ask_at_once_load_it_once(words, monkeypatch):
    loads, at_once = [], threading.Barrier(8)

    def load(fingerprint):
        loads.append(threading.get_ident())
        time.sleep(0.05)  # so that all the others are waiting by now
        return WordEncoder()

    monkeypatch.setattr(EncoderFingerprint, "load", load)
    lazy, encoders = LazyEncoder(fingerprint_of(words), None), []

    def ask():
        at_once.wait()
        encoders.append(lazy.get())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(encoders) == 8
    assert all(encoder is lazy.loaded for encoder in encoders)


def test_an_encoder_that_cannot_be_loaded_is_tried_again(words, monkeypatch):
    lazy = LazyEncoder(fingerprint_of(words), None)
    with pytest.raises(EncoderMismatchError, match="has no name to load it by"):
        lazy.get()
    monkeypatch.setattr(EncoderFingerprint, "load", lambda fingerprint: words)
    assert lazy.get() is words


def test_a_forked_process_need_not_wait_for_a_thread_of_its_parent(words, monkeypatch):
    loading, goes_on = threading.Event(), threading.Event()

    def load(fingerprint):
        loading.set()
        assert goes_on.wait(30)
        return words

    monkeypatch.setattr(EncoderFingerprint, "load", load)
    lazy = LazyEncoder(fingerprint_of(words), None)
    parent = threading.Thread(target=lazy.get)
    parent.start()
    assert loading.wait(30)
    lazy.renew_lock()  # as if this were the child, where the thread that holds the lock does not exist
    monkeypatch.setattr(EncoderFingerprint, "load", lambda fingerprint: words)
    child = threading.Thread(target=lazy.get, daemon=True)
    child.start()
    child.join(30)
    assert not child.is_alive()
    goes_on.set()
    parent.join()
