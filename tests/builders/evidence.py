"""Evidence made by hand, and what a browser would make of its page."""

from __future__ import annotations

import html.parser

import numpy as np

from colbert_core.evidence.evidence import Evidence, Match


class Shown(html.parser.HTMLParser):
    """What a browser would make of the element: the tags, and the texts of query and passage with white space kept."""

    @classmethod
    def of(cls, content):
        parser = cls(convert_charrefs=True)
        parser.tags, parser.marked, parser.texts, parser.open = [], [], [], []
        parser.feed(content)
        parser.close()
        parser.query, parser.passage, parser.caption = parser.texts
        return parser

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "div" and len(self.open) == 2:
            self.texts.append("")
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data
        if "mark" in self.open:
            self.marked[-1] += data


def evidence(query, text, matches, *, n=8, window=None, rows=None):
    similarities = np.zeros((len(matches), n), np.float32) if rows is None else np.array(rows, np.float32)
    made = tuple(Match(*match) for match in matches)
    return Evidence(query, "p", text, window or (0, len(text)), made, np.zeros((n, 2), np.int32), similarities)
