from __future__ import annotations

import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spool.errors import BadRequest
from spool.protocol.disposition import Disposition, clean_filename, parse_disposition

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that control something: a terminal, the direction of text, a line."""

anything = st.text(st.characters(exclude_categories=()))
"""Lone surrogates too."""
long_names = st.builds("{}{}".format, st.text(max_size=6), st.text(min_size=200, max_size=400)) | st.builds(
    "{}.{}".format, st.text(min_size=60, max_size=300), st.text(max_size=20)
)
odd_names = st.text(st.sampled_from("aé e\u0301😀./\\: \t\x00\u202e\u200b\u2028conCON1"), max_size=40)
names = anything | long_names | odd_names


@pytest.mark.parametrize(
    ("value", "name", "filename"),
    [
        ('form-data; name="file"; filename="song.mp3"', "file", "song.mp3"),
        ('form-data; name="title"', "title", None),
        ('form-data; name="file"; filename=""', "file", ""),
        ("form-data; name=file; filename=song.mp3", "file", "song.mp3"),
        ('FORM-DATA ; NAME="file" ; FileName = "song.mp3"', "file", "song.mp3"),
        ('form-data; name="file"; filename="a;b;c.mp3"', "file", "a;b;c.mp3"),
        ('form-data; name="file"; filename="say \\"hi\\".mp3"', "file", 'say "hi".mp3'),
        ('form-data; name="file"; filename="say %22hi%22.mp3"', "file", 'say "hi".mp3'),
        ('form-data; name="file"; filename="a%0D%0Ab"', "file", "a\r\nb"),
        ('form-data; name="file"; filename="100%.mp3"', "file", "100%.mp3"),
        ('form-data; name="file"; filename="50%25.mp3"', "file", "50%25.mp3"),
        ('form-data; name="file"; filename="back\\\\slash"', "file", "back\\slash"),
        ('form-data; name="file"; filename="C:\\Users\\ada\\new.mp3"', "file", "C:\\Users\\ada\\new.mp3"),
        ('form-data; name="file"; filename="C:\\Users\\ada\\"', "file", "C:\\Users\\ada\\"),
        ('form-data; name="file"; filename="\\\\host\\share\\new.mp3"', "file", "\\\\host\\share\\new.mp3"),
        ('form-data; name="file"; filename="ends in \\"', "file", "ends in \\"),
        ('form-data; name="file"; filename="Grüße.mp3"', "file", "Grüße.mp3"),
        ("form-data; name=\"file\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.mp3", "file", "Grüße.mp3"),
        ("form-data; name=\"file\"; filename*=utf-8'de'Gr%c3%bc%C3%9Fe.mp3", "file", "Grüße.mp3"),
        ("form-data; name=\"file\"; filename*=iso-8859-1''Gr%FC%DFe.mp3", "file", "Grüße.mp3"),
        ('form-data; name="f"; filename="a.mp3"; filename*=UTF-8\'\'b.mp3', "f", "b.mp3"),
        ('form-data; name="f"; filename*=UTF-8\'\'b.mp3; filename="a.mp3"', "f", "b.mp3"),
        ('form-data; name="f"; filename="a.mp3"; filename*=UTF-8\'\'%FF', "f", "a.mp3"),
        ('form-data; name="f"; filename="a.mp3"; filename*=nonsense', "f", "a.mp3"),
        ("form-data; name=\"f\"; filename*=UTF-8''%FF", "f", "UTF-8''%FF"),
        ('form-data; name="f"; filename="a.mp3"; size=7; x="y;z"', "f", "a.mp3"),
        ('form-data; name="f"; filename="a.mp3";', "f", "a.mp3"),
        ('form-data;; name="f" ;; filename="a.mp3"', "f", "a.mp3"),
    ],
)
def test_disposition_is_read(value: str, name: str, filename: str | None) -> None:
    assert parse_disposition(value) == Disposition("form-data", name, filename)


@pytest.mark.parametrize("kind", ["attachment", "inline", "form-data"])
def test_disposition_tells_its_kind(kind: str) -> None:
    assert parse_disposition(kind.upper()) == Disposition(kind, None, None)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "   ",
        '"form-data"',
        'form-data name="f"',
        'form-data; name="f',
        'form-data; name="f" filename="g"',
        "form-data; name",
        "form-data; =f",
        'form-data; name="f"; name="g"',
        'form-data; name="f"; filename="a"; FILENAME="b"',
        "form-data; filename*=UTF-8''a; filename*=UTF-8''b",
    ],
)
def test_disposition_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(BadRequest):
        parse_disposition(value)


@given(anything)
def test_disposition_is_read_or_refused(value: str) -> None:
    try:
        parse_disposition("form-data;" + value)
    except BadRequest:
        return


@given(st.text(st.characters(exclude_characters='"\\\r\n%', exclude_categories=("Cs",))))
def test_quoted_name_arrives_as_it_was_sent(name: str) -> None:
    assert parse_disposition(f'form-data; name="f"; filename="{name}"').filename == name


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_extended_name_arrives_as_it_was_sent(name: str) -> None:
    assert parse_disposition(f"attachment; filename*=UTF-8''{quote(name, safe='')}").filename == name


@given(names)
def test_clean_name_is_1_to_255_bytes_of_utf8(name: str) -> None:
    assert 1 <= len(clean_filename(name).encode("utf-8")) <= 255


@given(names)
@example("CON." + "a" * 200)
@example("a" * 237 + " .txt")
@example("é" * 127 + ".mp3")
@example("e\u0301" * 200)
def test_clean_name_stays_as_it_is(name: str) -> None:
    assert clean_filename(clean_filename(name)) == clean_filename(name)


def test_clean_name_of_a_device_with_a_long_ending_stays_as_it_is() -> None:
    name = clean_filename("con." + "a" * 300)
    assert clean_filename(name) == name


@given(names)
def test_clean_name_is_one_segment_of_a_path(name: str) -> None:
    clean = clean_filename(name)
    assert not set(clean) & set("/\\:\0")
    assert clean not in (".", "..")


@given(names)
def test_clean_name_holds_nothing_that_acts(name: str) -> None:
    assert {unicodedata.category(c) for c in clean_filename(name)} & ACTING == set()


@given(names)
def test_clean_name_neither_starts_nor_ends_blank(name: str) -> None:
    clean = clean_filename(name)
    assert clean == clean.strip()
    assert not clean.endswith(".")


@given(names)
def test_clean_name_is_composed(name: str) -> None:
    assert unicodedata.is_normalized("NFC", clean_filename(name))


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("song.mp3", "song.mp3"),
        ("a song;1.mp3", "a song;1.mp3"),
        (".htaccess", ".htaccess"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\Users\\ada\\song.mp3", "song.mp3"),
        ("c:song.mp3", "c_song.mp3"),
        ("song.mp3:hidden", "song.mp3_hidden"),
        ("a\x00b\x1b[31m.mp3", "ab[31m.mp3"),
        ("txt\u202e3pm.exe", "txt3pm.exe"),
        ("a\u200bb\ufeff.mp3", "ab.mp3"),
        ("a\r\nb\u2028c", "abc"),
        ("\ud800song.mp3", "song.mp3"),
        ("e\u0301.mp3", "é.mp3"),
        ("  song.mp3  ", "song.mp3"),
        ("song.mp3...", "song.mp3"),
        ("song. . .", "song"),
    ],
)
def test_name_is_made_harmless(name: str, clean: str) -> None:
    assert clean_filename(name) == clean


@pytest.mark.parametrize("name", ["", " ", ".", "..", "...", "/", "a/", "\\", "\x00", "\u202e", "\ud800", ". . ."])
def test_name_of_nothing_is_unnamed(name: str) -> None:
    assert clean_filename(name) == "unnamed"


@pytest.mark.parametrize(
    "name",
    [
        "con",
        "CON",
        "Nul.txt",
        "aux.tar.gz",
        "prn ",
        "com1",
        "COM9.log",
        "lpt¹",
        "com².txt",
        "conin$",
        "CONOUT$",
        "nul .a",
    ],
)
def test_name_of_a_device_gets_another_start(name: str) -> None:
    assert clean_filename(name) == "_" + name.strip()


@pytest.mark.parametrize("name", ["console", "com10", "nullable.txt", "a.con", "lpt", "com"])
def test_name_that_only_looks_like_a_device_stays(name: str) -> None:
    assert clean_filename(name) == name


def test_long_name_keeps_its_extension() -> None:
    clean = clean_filename("a" * 400 + ".mp3")
    assert clean == "a" * 251 + ".mp3"


def test_long_extension_is_cut_too() -> None:
    assert clean_filename("a." + "b" * 400) == "a." + "b" * 253


def test_4_kib_of_emoji_are_cut_between_characters() -> None:
    clean = clean_filename("😀" * 1024)
    assert clean == "😀" * 63
    assert len(clean.encode()) == 252


def test_4_kib_of_emoji_keep_their_extension() -> None:
    assert clean_filename("😀" * 1024 + ".webm") == "😀" * 62 + ".webm"


def test_cut_leaves_no_blank_or_dot_at_the_end() -> None:
    assert clean_filename("a" * 254 + " b") == "a" * 254
    assert clean_filename("a" * 254 + "." + "b" * 20) == "a" * 254
