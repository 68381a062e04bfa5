"""Text in the encodings that people still have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core.documents import encodings
from colbert_core.documents.encodings import decode, read_content
from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.plain import read_plain, read_text

SENTENCES = [
    ("latin-1", "Grüße aus Köln, der Rhein führt Wasser."),
    ("latin-1", "Le café est fermé à Noël, où êtes-vous allés cet été ?"),
    ("latin-1", "El niño comió una manzana en la montaña."),
    ("latin-1", "50 °C ± 2"),
    ("cp1252", "Ärger über Öl – „schön“ und groß"),
    ("cp1252", "It’s a “quoted” text — really."),
    ("cp1250", "Zażółć gęślą jaźń. Wczoraj byłem w Łodzi."),
    ("cp1251", "Привет, как дела? Сегодня хорошая погода."),
    ("koi8-r", "Москва является столицей России и крупнейшим городом страны."),
    ("shift-jis", "吾輩は猫である。名前はまだ無い。"),
    ("euc-jp", "東京は日本の首都です。人口は約千四百万人です。"),
    ("gb18030", "北京是中华人民共和国的首都，是全国的政治中心。"),
    ("big5", "臺北是中華民國的首都，也是全國的政治中心。"),
    ("euc-kr", "서울은 대한민국의 수도이자 최대 도시이다."),
    ("cp1253", "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας."),
    ("cp1255", "ירושלים היא בירת ישראל והעיר הגדולה ביותר בה."),
    ("cp1256", "القاهرة هي عاصمة جمهورية مصر العربية وأكبر مدنها."),
    ("tis-620", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"),
]


@pytest.mark.parametrize(("encoding", "sentence"), SENTENCES)
def test_one_sentence_is_enough_to_find_its_encoding(tmp_path, encoding, sentence):
    file = tmp_path / "old.txt"
    file.write_bytes(sentence.encode(encoding))
    assert [part.text for part in read_plain(file)] == [sentence]


@pytest.mark.parametrize(("encoding", "sentence"), SENTENCES)
def test_ascii_around_a_sentence_does_not_hide_its_encoding(encoding, sentence):
    text = "def main():\n    return 0\n\n" * 2000 + sentence + "\n" + "x = 1\n" * 2000
    assert decode(text.encode(encoding), "x") == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_unicode_with_a_byte_order_mark_is_read_without_the_mark(encoding):
    mark = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff", "utf-32-le": "\ufeff", "utf-32-be": "\ufeff"}.get(encoding, "")
    assert decode((mark + "für 5 €\nund 日本").encode(encoding), "x") == "für 5 €\nund 日本"


def test_utf8_that_is_cut_off_or_has_a_stray_byte_is_still_utf8():
    assert decode("Grüße, schö".encode()[:-1], "x") == "Grüße, sch\ufffd"
    assert decode("größer, schöner, äh ".encode() + b"\xfc", "x") == "größer, schöner, äh \ufffd"


def test_an_encoding_that_is_declared_goes_before_one_that_is_guessed():
    turkish = "İstanbul'da güneşli bir gün"
    assert decode(turkish.encode("cp1254"), "x", "ISO-8859-9") == turkish
    assert decode("日本".encode("iso-2022-jp"), "x", "iso-2022-jp") == "日本"
    assert decode("“so”".encode("cp1252"), "x", "iso-8859-1") == "“so”"  # as browsers have it


@pytest.mark.parametrize("declared", ["", "utf-8", "no-such-encoding", "hex", "ascii", "\0"])
def test_a_declaration_that_is_wrong_counts_for_nothing(declared):
    assert decode("Grüße aus Köln".encode("latin-1"), "x", declared) == "Grüße aus Köln"
    assert decode("Grüße aus Köln".encode(), "x", declared) == "Grüße aus Köln"


def test_ends_of_lines_are_those_of_unix():
    assert decode(b"a\r\nb\rc\n", "x") == "a\nb\nc\n"


@pytest.mark.parametrize("content", [b"a\0b", bytes(range(256)), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\x01\x02\x03 abc"])
def test_what_is_no_text_is_refused_as_binary(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.txt is no text") as error:
        list(read_plain(tmp_path / "a.txt"))
    assert error.value.kind == "binary"


def test_a_log_with_colors_is_a_text():
    assert decode(b"\x1b[31merror\x1b[0m: none\n", "x") == "\x1b[31merror\x1b[0m: none\n"


def test_a_document_larger_than_the_most_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "LARGEST", 2**20)
    (tmp_path / "a.txt").write_bytes(b"a" * 2**20)
    assert len(read_content(tmp_path / "a.txt")) == 2**20
    (tmp_path / "a.txt").write_bytes(b"a" * (2**20 + 1))
    with pytest.raises(UnreadableFileError, match="larger than 1 MiB") as error:
        read_text(tmp_path / "a.txt")
    assert error.value.kind == "too large"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_every_text_in_utf8_is_read_as_it_is(text):
    assert decode(text.encode(), "x") == text.removeprefix("\ufeff")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_as_binary(content):
    try:
        assert isinstance(decode(content, "x"), str)
    except UnreadableFileError as error:
        assert error.kind == "binary"


def test_the_log_says_which_encoding_was_guessed(caplog):
    assert decode("Grüße aus Köln".encode("latin-1"), "docs/zz.txt") == "Grüße aus Köln"
    assert caplog.messages == ["docs/zz.txt is not UTF-8; it is read as cp1252, the likeliest encoding."]
    caplog.clear()
    decode("Grüße".encode(), "x")
    decode("Grüße".encode("utf-16"), "x")
    decode("Grüße".encode("latin-1"), "x", "latin-1")
    assert caplog.messages == []
