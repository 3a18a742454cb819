"""Outputs appear whole or not at all."""

import os

import pytest

from headsr.files import read_json, whole, write_json


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1})
    with pytest.raises(RuntimeError), whole(tmp_path / "a.json") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == {"b": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


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
