"""Outputs appear whole or not at all."""

import hashlib
import os
import re
import socket

import pytest

from headsr import files
from headsr.files import (
    UnreadableError,
    completed,
    partials_of,
    read_json,
    read_rows,
    read_text,
    sha256_of,
    tree_hash,
    whole,
    write_json,
)
from headsr.labelmaps import read_maps
from headsr.simulate.labels import read_structures


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1})
    with pytest.raises(RuntimeError), whole(tmp_path / "a.json") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == {"b": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_partial_s_name_is_its_process_s_own_among_all_nodes_and_keeps_its_endings(tmp_path, monkeypatch):
    with whole(tmp_path / "a.nii.gz") as partial:
        partial.touch()
        assert re.fullmatch(rf"\..*{re.escape(socket.gethostname())}\.{os.getpid()}\..*a\.nii\.gz", partial.name)
        monkeypatch.setattr(socket, "gethostname", lambda: "node-2.cluster.example")
        with whole(tmp_path / "a.nii.gz") as other:
            other.touch()
            assert partials_of(tmp_path / "a.nii.gz") == sorted([partial, other])
    assert partials_of(tmp_path / "a.nii.gz") == []


def test_what_others_keep_beside_a_file_is_no_partial_of_it(tmp_path):
    for name in (".my.config.json", ".1.config.json", ".config.json", "config.json", ".a.1.partial.my.config.json"):
        (tmp_path / name).touch()
    assert partials_of(tmp_path / "config.json") == []
    with whole(tmp_path / "[a].json") as partial:
        partial.touch()
        assert (partials_of(tmp_path / "[a].json"), partials_of(tmp_path / "a.json")) == ([partial], [])


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o027)
    try:
        with whole(tmp_path / "weights.safetensors") as partial:
            partial.touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == 0o640


def test_json_has_no_nan_and_damage_is_named(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"b": float("nan")})
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_tree_is_known_by_the_names_and_the_content_of_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    (tmp_path / "b").write_text("2")
    known = "".join(f"{name}\0{hashlib.sha256(text).hexdigest()}\n" for name, text in (("a/x", b"1"), ("b", b"2")))
    assert tree_hash(tmp_path) == hashlib.sha256(known.encode()).hexdigest()
    alone = tree_hash(tmp_path, leaving_out={"b"})
    assert alone == tree_hash(tmp_path, leaving_out={"b", "x"}) != tree_hash(tmp_path)
    (tmp_path / "b").rename(tmp_path / "c")
    assert tree_hash(tmp_path) != hashlib.sha256(known.encode()).hexdigest()


def test_what_was_put_in_place_is_known_and_what_failed_is_not(tmp_path):
    write_json(tmp_path / "good.json", {})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "bad.json", float("nan"))
    write_json(tmp_path / "good.json", {})
    mine = [path for path in completed() if path.parent == tmp_path]
    assert mine == [tmp_path / "good.json"]


@pytest.mark.parametrize("read", [sha256_of, read_json, read_text, read_structures, read_maps])
def test_what_is_no_file_is_refused_at_once(read, endless):
    path = endless("input")
    with pytest.raises(ValueError, match=r"input: is a pipe or a device, not a file\. Write its content into a file"):
        read(path)


def test_a_link_where_the_partial_file_goes_is_not_written_through(tmp_path):
    (tmp_path / "thesis.txt").write_text("my own")
    planted = tmp_path / f".{socket.gethostname()}.{os.getpid()}.partial.out.json"
    planted.symlink_to(tmp_path / "thesis.txt")
    write_json(tmp_path / "out.json", {"a": 1})
    assert (tmp_path / "thesis.txt").read_text() == "my own"
    assert read_json(tmp_path / "out.json") == {"a": 1} and not (tmp_path / "out.json").is_symlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "too deep in one another"),
        (b'{"a": ' + b"9" * 400 + b"}", "a number of 400 digits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"a": 1e999}', "1e999 is too large a number"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b"", "Expecting value"),
    ],
)
def test_json_that_would_fail_far_from_its_file_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(
        UnreadableError, match=rf"a\.json: not valid JSON \(.*{message}.*\)\. Move it away and run again"
    ):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": "\\ud83d\\ude00", "b": 1e300}')  # both halves of one
    assert read_json(tmp_path / "a.json") == {"a": "\U0001f600", "b": 1e300}


def test_text_in_another_encoding_is_named_with_the_way_out(tmp_path):
    (tmp_path / "a.json").write_bytes('{"a": "é"}'.encode("latin-1"))
    for read in (read_text, read_json, read_rows):
        with pytest.raises(UnreadableError, match=r"a\.json: is no text in UTF-8: byte 7 is 0xe9\. Save it as UTF-8"):
            read(tmp_path / "a.json")


def test_a_text_too_large_for_one_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 10)
    (tmp_path / "a.json").write_text("[" + " " * 10 + "]")
    with pytest.raises(UnreadableError, match=r"a\.json: has more than 10 bytes"):
        read_json(tmp_path / "a.json")


def test_a_table_is_read_by_its_columns_and_lines(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('a\tb\n1\t"2\n3"\n\n4\n')
    with pytest.raises(UnreadableError, match=r"a\.tsv, line 5: the row does not have 2 columns\. Repair that line"):
        read_rows(path)
    columns, rows = read_rows(path, stripped=True)
    assert columns == ("a", "b")
    assert rows == [(f"{path}, line 3", {"a": "1", "b": "2\n3"}), (f"{path}, line 5", {"a": "4", "b": ""})]
