"""HTML: what a page says, without what stands around it."""

from __future__ import annotations

import sys

import pytest

from colbert_core.documents.html import html_part, read_html
from colbert_core.documents.part import UnreadableFileError
from colbert_core.errors import MissingExtraError

PAGE = """<!doctype html><html><head><title>os — Miscellaneous &#8212; Python 3.11.2 documentation</title>
<style>p { color: red }</style><script>var x = "<p>script</p>";</script></head><body>
<header><a href="/">Home</a></header><nav><ul><li>menu</li></ul></nav><div role="navigation">links</div>
<div class="document"><div class="body" role="main">
<h1>os — Miscellaneous<a class="headerlink" href="#os">¶</a></h1>
<p>See <a href="open.html"><code>open()</code></a>,
   <em>fast</em> &amp; safe.<br>Next&nbsp;line.</p>
<h2>Lists<a href="#lists">#</a></h2>
<ul><li>one<ul><li><p>inner</p><p>more</p></li></ul></li><li>two</li></ul><ol><li>a</li><li>b</li></ol>
<dl><dt>os.name<a class="headerlink" href="#n">¶</a></dt><dd><p>The name.</p></dd></dl>
<h3>Code</h3><pre><span># no heading</span>
if x &lt; 1:
    pass
</pre>
<table><caption>Sums</caption><tr><th>x</th><th>sum</th></tr><tr><td><p>1</p></td><td>a<br>b</td></tr><tr><td></td><td></td></tr></table>
<p># not a heading</p><form>Search <input value="in"><button>Go</button></form><aside>advert</aside>
</div></div><div class="sphinxsidebar">side</div><footer>© us</footer></body></html>"""


def test_a_page_becomes_markdown_without_what_stands_around_it():
    part = html_part(PAGE, "os.html")
    assert part.title == "os — Miscellaneous"
    assert part.is_markdown
    assert part.text == (
        "# os — Miscellaneous\n\nSee open(), fast & safe.\nNext line.\n\n## Lists\n\n- one\n  - inner\n\nmore\n\n- two\n1. a\n2. b\n\n"
        "os.name\nThe name.\n\n### Code\n\n```\n# no heading\nif x < 1:\n    pass\n```\n\nSums\n\nx | sum\n1 | a b\n\n"
        "\\# not a heading\n\nSearch"
    )


@pytest.mark.parametrize(
    ("title", "h1", "kept"),
    [
        ("Cats | Site", "Cats", "Cats"),
        ("Cats - Site", "Cats", "Cats"),
        ("Cats", "Dogs", "Cats"),
        ("Cats and dogs", "Cats", "Cats and dogs"),
        ("Site: Cats", "Cats", "Site: Cats"),
        ("", "Cats", "Cats"),
        ("Cats", "", "Cats"),
    ],
)
def test_the_title_is_that_of_the_page_without_the_name_of_its_site(title, h1, kept):
    assert html_part(f"<title>{title}</title><h1>{h1}</h1><p>x", "x").title == kept


def test_the_header_of_an_article_with_its_heading_stays():
    assert html_part("<header>Site</header><article><header><h1>A</h1></header>b</article>", "x").text == "# A\n\nb"


def test_of_several_articles_all_are_read():
    assert html_part("<article>a</article><article>b</article>", "x").text == "a\n\nb"


def test_a_page_that_is_all_navigation_is_read_nevertheless():
    assert html_part("<nav><a href='a'>a page</a></nav><script>x</script>", "x").text == "a page"


def test_a_table_that_arranges_a_page_is_no_table_of_values():
    page = "<table><tr><td>menu</td><td><h2>A</h2><p>b</p><table><tr><td>1<td>2</table></td></tr><tr><td>c<td>d</table>"
    assert html_part(page, "x").text == "menu\n\n## A\n\nb\n\n1 | 2\nc | d"


def test_footnotes_of_sphinx_stay():
    assert html_part('<main>a<aside class="footnote-list">[1] note</aside></main>', "x").text == "a\n\n[1] note"


def test_elements_that_xhtml_ends_at_once_hide_nothing():
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><script src="a.js"/><title/></head><body><a id="x"/><p>text</p>'
    assert html_part(page, "x").text == "text"


@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        ('<meta charset="windows-1251"><p>Да', "cp1251"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=ISO-8859-9"><p>Işık', "cp1254"),
        ('<?xml version="1.0" encoding="shift_jis"?><html><p>猫', "shift-jis"),
        ("<meta charset=utf-8><p>Grüße aus Köln", "latin-1"),
        ("<meta charset=latin-1><p>Grüße", "utf-8"),
    ],
)
def test_a_page_is_in_the_encoding_that_it_names_unless_it_cannot_be(tmp_path, page, encoding):
    (tmp_path / "a.html").write_bytes(page.encode(encoding))
    (part,) = read_html(tmp_path / "a.html")
    assert part.text == page.rpartition(">")[2]


@pytest.mark.parametrize("page", ["", "<p>", "<!-- a -->", "<frameset><frame src=a></frameset>", "<script>x</script>"])
def test_a_page_that_says_nothing_has_no_parts(tmp_path, page):
    (tmp_path / "a.html").write_text(page)
    assert list(read_html(tmp_path / "a.html")) == []


@pytest.mark.parametrize("page", ["<div>" * 3000, "<ul><li>" * 2000, "<table><tr><td>" * 900, "<b><p>" * 900, "<pre>" * 2900])
def test_pages_that_are_nested_deep_are_read(page):
    assert html_part(page + "end", "x").text.split()[-2 if "<pre>" in page else -1].endswith("end")


def test_a_page_that_is_nested_without_end_is_refused():
    with pytest.raises(UnreadableFileError, match="x has elements nested more than 3,000 deep") as error:
        html_part("<div>" * 200_000 + "</div>" * 200_000, "x")
    assert error.value.kind == "damaged"


def test_without_selectolax_the_pip_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
    with pytest.raises(MissingExtraError, match=r"Reading a\.html needs selectolax.*pip install selectolax"):
        html_part("<p>a", "a.html")
