"""Mirrors cdm_cli/data/tables.py: what a column holds, and which cell is odd."""

import json
import os

import pytest

from cdm_cli.data.tables import read_json, read_label_table
from cdm_cli.errors import BadInputError, MissingError
from cdm_cli.names import MOST_CLASSES


def table(tmp_path, cells, head="file,label", name="t.csv"):
    lines = [head] if head else []
    lines += [f"i{i}.png,{cell}" for i, cell in enumerate(cells)]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return read_label_table(tmp_path / name)


def values(tmp_path, cells, **changes):
    return list(table(tmp_path, cells, **changes).values.values())


@pytest.mark.parametrize("head", ["file,label", "filename,class", "", "path,class_name"])
@pytest.mark.parametrize("form", ["{}", "{}.0", " {} ", "{}."])
def test_whole_numbers_are_ids_however_they_are_written(tmp_path, head, form):
    numbers = [3, 0, 12, 7]
    assert values(tmp_path, [form.format(k) for k in numbers], head=head) == numbers


@pytest.mark.parametrize("odd", ["-1", "nan", "", "2.5", "cat", "1e3", "9" * 5000, "0x3", "²"])
@pytest.mark.parametrize("place", [0, 5])
def test_one_odd_cell_does_not_make_names_of_numbers(tmp_path, odd, place):
    cells = [str(k) for k in range(12)]
    cells[place] = odd
    with pytest.raises(BadInputError, match=rf"t\.csv, line {place + 2}\b"):
        table(tmp_path, cells)


@pytest.mark.parametrize("share", [1, 3, 9])
def test_columns_of_numbers_without_labels_are_no_names_at_any_share(tmp_path, share):
    for word in ("-1", "NaN", "-1.0"):
        with pytest.raises(BadInputError, match="is no class id"):
            table(tmp_path, ["4"] + [word] * share)
    with pytest.raises(BadInputError, match="'nan' is no class id, 0 of 3 labels are"):
        table(tmp_path, ["cat", "nan", "dog"])


def test_names_are_names_also_where_a_few_look_like_numbers(tmp_path):
    cells = ["cat", "dog", "7", "eagle"]
    assert values(tmp_path, cells) == cells
    cells = ["007", "10", "1e3", "2-4"]
    assert values(tmp_path, cells, head="file,class_name") == cells
    with pytest.raises(BadInputError, match=r"'1e3' is no class id, 2 of 4 labels are"):
        table(tmp_path, cells)


def test_names_beside_ids_are_kept_as_they_are(tmp_path):
    (tmp_path / "t.csv").write_text("file,label,class_name\na.png,0.0,007\nb.png,1,1.0\n")
    found = read_label_table(tmp_path / "t.csv")
    assert found.values == {"a.png": 0, "b.png": 1}
    assert found.names == ("007", "1.0")


@pytest.mark.parametrize("head", ["img,target", "0,1", "label,file_id", "files,label"])
def test_an_unknown_header_shows_the_known_ones(tmp_path, head):
    with pytest.raises(BadInputError, match=r"line 1: .* nor a known header") as caught:
        table(tmp_path, ["0", "1"], head=head)
    assert "file, filename" in str(caught.value.next)
    with pytest.raises(BadInputError, match="line 1: there is no column of labels") as caught:
        table(tmp_path, ["0", "1"], head="file,target")
    assert "class_id" in str(caught.value.next)


def test_lines_are_counted_as_an_editor_does(tmp_path):
    text = 'file,label\r\n\r\n"a\nb.png",1\r\n\r\nc.png,oops\r\nd.png,2\r\n'
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.raises(BadInputError, match="line 6: 'oops'"):
        read_label_table(tmp_path / "t.csv")


def test_a_table_may_be_a_link_but_not_a_pipe(tmp_path):
    table(tmp_path, ["1"])
    (tmp_path / "link.csv").symlink_to("t.csv")
    assert read_label_table(tmp_path / "link.csv").values == {"i0.png": 1}
    with pytest.raises(MissingError):
        read_label_table(tmp_path / "none.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(BadInputError, match="not a regular file"):
        read_label_table(tmp_path / "pipe.csv")


def test_json_says_whole_numbers_as_it_likes_and_no_labels():
    def read(labels):
        return read_json(json.dumps({"labels": labels}).encode(), "d.json")

    assert read([["a.png", 1.0], ["b.png", 0]]).values == {"a.png": 1, "b.png": 0}
    assert read({"a.png": "cat", "b.png": "7"}).values == {"a.png": "cat", "b.png": "7"}
    assert read(None) is read([]) is None
    for odd in (-1, None, True, 2.5, float("nan"), [1], "3", MOST_CLASSES, 1e300, ["x" * 999]):
        with pytest.raises(BadInputError, match=r"entry 1|outside") as caught:
            read([["a.png", 2], ["b.png", odd]])
        assert len(str(caught.value)) < 500
    with pytest.raises(BadInputError, match="entry 2: '-1' is no class id"):
        read([["a.png", "2"], ["b.png", "10"], ["c.png", "-1"]])
