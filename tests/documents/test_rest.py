"""reStructuredText: headings and code become Markdown's."""

from __future__ import annotations

from colbert_core.documents.rest import read_rest, rest_part


def test_headings_have_the_levels_in_which_their_signs_come():
    part = rest_part("=====\n Top\n=====\n\nOne\n===\n\na\n\nTwo\n---\n\nb\n\nThree\n=====\n")
    assert part.text == "# Top\n\n## One\n\na\n\n### Two\n\nb\n\n## Three\n"
    assert part.title == "Top"
    assert part.is_markdown


def test_what_looks_like_a_heading_and_is_none_stays():
    for text in (
        "a line\nin a paragraph\n--------------\n",
        "above\n\n----\n\nbelow",
        "Longer than\n==",
        "  indented\n  ========",
    ):
        assert rest_part(text).text == text
        assert rest_part(text).title == ""


def test_a_rule_of_four_signs_is_enough_as_for_docutils():
    assert rest_part("A long heading\n====\n").text == "# A long heading\n"


def test_code_goes_between_fences_without_its_indent():
    text = ".. code-block:: python\n   :linenos:\n\n   # no heading\n   def f():\n       pass\n\nAfter."
    assert rest_part(text).text == "```python\n# no heading\ndef f():\n    pass\n```\n\nAfter."
    assert rest_part("So::\n\n    # no heading\n    x\n\nAfter.").text == "So:\n\n```\n# no heading\nx\n```\n\nAfter."
    assert rest_part("::\n\n  x").text == "\n```\nx\n```"


def test_directives_stay_readable_and_roles_lose_their_names():
    text = ".. note:: See :ref:`the start <start>`, :py:func:`open` and ``ls -l``.\n\n   More."
    assert rest_part(text).text == ".. note:: See the start, open and `ls -l`.\n\n   More."
    assert rest_part(".. _label:\n\nTitle\n=====\n").text == "\n# Title\n"
    assert rest_part(".. _label:\nTitle\n=====\n").title == "Title"


def test_a_sign_of_markdown_is_escaped():
    assert rest_part("# a comment\n").text == "\\# a comment\n"


def test_a_file_is_read(tmp_path):
    (tmp_path / "a.rst").write_text("Title\n=====\n\ntext\n")
    (part,) = read_rest(tmp_path / "a.rst")
    assert (part.title, part.text) == ("Title", "# Title\n\ntext\n")
