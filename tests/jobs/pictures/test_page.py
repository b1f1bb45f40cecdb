"""Mirrors cdm_cli/jobs/pictures/page.py: one file, nothing from elsewhere, everything escaped."""

import base64
import os
import re

import pytest

from cdm_cli.errors import BadInputError, UnsafeInputError, WouldOverwriteError
from cdm_cli.jobs.pictures import page
from tests.jobs.pictures.reading import Read

EVIL = "</p><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\udc80\n--><b>"
SAID = EVIL.replace("\x1b", r"\x1b").replace("\udc80", r"\udc80").replace("\n", r"\n")


def everything(word):
    return page.page(
        word, word,
        page.paragraph(word, "lead"),
        page.section(word, page.facts({word: word}), page.notes([word])),
        page.fold(word, page.table([word, "n"], [[word, 1], [word, 2]], [True, False])),
        page.commands([word, word]), page.picture(b"png", word),
        page.parents([{"role": word, "name": word, "digest": word}] * 2),
    )  # fmt: skip


def test_whatever_a_file_says_is_text():
    read = Read(everything(EVIL))
    assert read.words.count(SAID) == 16
    assert read.images == [SAID]
    plain = Read(everything("plain"))
    assert read.tags == plain.tags


def test_nothing_is_loaded_and_nothing_runs():
    whole = everything(EVIL).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', whole)[1]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "http:" not in whole.replace("http-equiv", "")
    assert "url(" not in whole


def test_a_long_value_is_cut():
    assert len(page.text("x" * 10**6)) < 3000


def test_what_is_not_there_leaves_no_mark():
    nothing = page.Html("")
    parts = [
        page.paragraph(""), page.section("x", nothing), page.fold("x", nothing),
        page.table(["x"], []), page.facts({"x": None, "y": ""}), page.notes([]),
        page.commands(["", ""]), page.picture(None, "x"),
    ]  # fmt: skip
    assert parts == [nothing] * len(parts)


def test_a_picture_is_a_png_of_its_own_and_nothing_from_elsewhere(tmp_path):
    png, there = page.PNG + b"...", tmp_path / "there.png"
    there.write_bytes(png)
    assert page.read_picture(there) == png
    assert page.read_picture(tmp_path / "absent.png") is None
    (tmp_path / "link.png").symlink_to(there)
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("link.png", "pipe.png"):
        with pytest.raises(UnsafeInputError, match=f"{name} is not a regular file"):
            page.read_picture(tmp_path / name)
    (tmp_path / "secret.png").write_bytes(b"-----BEGIN")
    with pytest.raises(BadInputError, match=r"secret\.png is no PNG .*no page was written"):
        page.read_picture(tmp_path / "secret.png")


def test_columns_of_numbers_stand_to_the_right_and_lines_stand_out():
    made = page.table(["a", "b"], [["x", "1.5"], ["y", ""]], [False, True])
    assert made.count('<td class="n">') == 2
    assert made.count('<tr class="good">') == 1


def test_a_picture_is_within_the_page():
    assert base64.b64encode(b"bytes").decode() in page.picture(b"bytes", "x")


def test_settings_are_one_list():
    told = page.facts({"a": {"b": 1, "c": {"d": 2}}, "e": 3, "f": {"g": None}})
    assert re.findall("<dt>(.*)</dt><dd>(.*)</dd>", told) == [
        ("a.b", "1"),
        ("a.c.d", "2"),
        ("e", "3"),
    ]


def test_a_page_replaces_one_of_the_same_and_nothing_else(tmp_path):
    path = tmp_path / "r.html"
    page.write_page(path, "stage a--b", page.page("1", "stage a--b"))
    page.write_page(path, "stage a--b", page.page("2", "stage a--b"))
    assert "<title>2</title>" in path.read_text()
    for other in (path, tmp_path):
        before = path.read_bytes()
        with pytest.raises(WouldOverwriteError, match="is no report of stage b"):
            page.write_page(other, "stage b", page.page("3", "stage b"))
        assert path.read_bytes() == before
    with pytest.raises(WouldOverwriteError, match=r"of this sweep .*-o \S*r-2\.html$"):
        page.write_page(path, "sweep 208a483c", page.page("4", "sweep 208a483c"))
