"""Evidence as HTML and terminal text: what came from outside stays text."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from builders.encoders import WordEncoder
from builders.evidence import Shown, evidence

from colbert_core import Passage, Reranker
from colbert_core.evidence.evidence import as_page


class SpanEncoder(WordEncoder):
    """Knows the characters of its words, and its first query vector is its own, as [CLS] is."""

    def encode_queries(self, texts):
        return [np.vstack([self.vector("[CLS]"), matrix]) for matrix in super().encode_queries(texts)]

    def query_spans(self, text):
        return np.array([(0, 0), *((match.start(), match.end()) for match in re.finditer(r"\S+", text))], np.int32)


HOSTILE = 'dogs <script>alert("x")</script> & <img src=x onerror=alert(1)> bark'


def test_html_escapes_what_came_from_outside():
    found = Reranker(SpanEncoder()).explain('dogs "<b>bark</b>"', Passage('"><script>', HOSTILE))
    shown = Shown.of(found._repr_html_())
    assert {tag for tag, _ in shown.tags} <= {"div", "mark", "s"}
    assert shown.passage.replace(" …", "") == HOSTILE[: found.window[1]]
    assert shown.query == 'dogs "<b>bark</b>"'
    assert '"><script>' in shown.caption
    assert "dogs" in shown.marked


def test_html_marks_the_spans_and_crosses_out_what_was_not_found():
    found = Reranker(SpanEncoder()).explain("dogs yodel", Passage("x", "all dogs bark"))
    shown = Shown.of(found.to_html())
    assert shown.marked == ["dogs"]
    (mark,) = [attributes for tag, attributes in shown.tags if tag == "mark"]
    assert mark["title"] == "dogs: 1.00"
    assert re.search(r"rgba\(255,165,0,0\.75\)", mark["style"])  # the strongest
    assert "color:inherit" in mark["style"]  # readable in light and dark
    assert re.search(r"<s [^>]*>yodel</s>", found.to_html())


def test_a_word_is_crossed_out_where_it_stands_and_not_inside_another():
    found = Reranker(SpanEncoder()).explain("winning in winning", Passage("x", "winning"))
    assert found.unmatched == ("in",)
    assert re.search(r">winning <s [^>]*>in</s> winning<", found.to_html())


def test_html_loads_nothing():
    found = Reranker(SpanEncoder()).explain("dogs", Passage("x", "dogs"))
    page = as_page([found, found], "dogs & <more>")
    assert "<title>dogs &amp; &lt;more&gt;</title>" in page
    assert page.count('class="colbert-evidence"') == 2
    assert not re.search(r"https?:|<link|<script|url\(|@import|src=", page)
    assert '<meta name="color-scheme" content="light dark">' in page


def test_the_terminal_gets_brackets_or_colours_and_nothing_that_moves_its_cursor():
    found = Reranker(SpanEncoder()).explain("dogs", Passage("x", "all \x1b[2J dogs\r\nbark"))
    assert found.to_terminal(color=False) == "all  [2J [dogs]  bark"
    assert found.to_terminal() == "all  [2J \x1b[30;48;5;214mdogs\x1b[0m  bark"


def test_a_window_shows_that_there_is_more_on_both_sides():
    found = evidence("x", "before dogs after", [((0, 1), (7, 11), 0.9)], window=(7, 11), rows=[[0.9, 0]], n=2)
    assert found.to_terminal(color=False) == "… [dogs] …"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_hostile_passages_as_text(tmp_path):
    found = Reranker(SpanEncoder()).explain("dogs bark", Passage("x", HOSTILE))
    page = tmp_path / "page.html"
    page.write_text(as_page([found], "dogs"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert "&lt;script&gt;" in dom
    assert "<script" not in dom
    assert "<img" not in dom
    assert dom.count("<mark") == 2
