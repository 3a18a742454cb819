"""Where people work: homes, variables, odd names, disks that are full or know no modes, readers that stop reading."""

import errno
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from headsr import cli, files
from headsr.clones import address_of
from headsr.files import UnwritableError, temporary_folder, whole, write_json
from headsr.preprocess.bias import bias_field_of
from headsr.recipes import RecipeError, load_config, write_out_paths
from headsr.recipes.config import Config, Files, paths_of
from headsr.sr.outputs import result_at
from headsr.volumes import Grid, Volume, save_volume

BAD = os.fsdecode(b"sub-\xff\xe9_T1w.nii.gz")  # as an old Windows share has it


@pytest.fixture
def delta(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/big")
    monkeypatch.delenv("NOWHERE", raising=False)

    def write(text):
        (tmp_path / "delta.yaml").write_text(text)
        return [str(tmp_path / "delta.yaml")]

    return write


def test_a_home_and_a_variable_are_written_out_in_every_path(delta):
    for kind, within in ((Config, None), (Files, "recipes")):
        for key in paths_of(kind):
            block = {key: f"${{SCRATCH}}/my {key}"}
            config = load_config(delta(json.dumps(block if within is None else {within: block})))
            assert (config if within is None else config[within])[key] == f"/big/my {key}"
    config = load_config(delta("results: ~/heads\nclones: $SCRATCH/clones"))
    assert (config["results"], config["clones"]) == ("/home/me/heads", "/big/clones")
    again = dict(config)
    write_out_paths(again, "x")
    assert again == config


@pytest.mark.parametrize(
    ("path", "named"),
    [("$NOWHERE/x", "$NOWHERE"), ("${NOWHERE}/x", "${NOWHERE}"), ("~nobody-of-that-name/x", "~nobody-of-that-name")],
)
def test_what_is_not_set_is_refused_by_its_key(delta, path, named):
    with pytest.raises(RecipeError) as refusal:
        load_config(delta(f"mlflow: {path}"))
    assert "delta.yaml: mlflow: " in str(refusal.value) and f"there is no {named} here" in str(refusal.value)


def test_the_url_of_a_dataset_is_a_path_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADS", str(tmp_path))
    (tmp_path / "study/.git").mkdir(parents=True)
    assert address_of("$HEADS/study") == str((tmp_path / "study").resolve())


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EIO])
def test_a_disk_without_modes_is_written_on_all_the_same(tmp_path, monkeypatch, number):
    def refused(path, mode):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "chmod", refused)
    if number == errno.EIO:
        with pytest.raises(OSError, match="error"):
            write_json(tmp_path / "a.json", {})
        assert list(tmp_path.iterdir()) == []
    else:
        write_json(tmp_path / "a.json", {})
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_full_temporary_folder_is_named_with_its_free_space(small_disk, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with (
        pytest.raises(UnwritableError) as refusal,
        temporary_folder("n4") as folder,
        whole(folder / "scan.nii") as partial,
    ):
        partial.write_bytes(bytes(3 * 2**20))
    said = str(refusal.value)
    assert said.startswith(f"{small_disk}: the temporary folder is full: ") and " of 2 MiB are free. " in said
    assert "name another with TMPDIR" in said and list(small_disk.iterdir()) == []


def test_a_full_disk_elsewhere_is_not_the_temporary_folder(small_disk):
    with (
        pytest.raises(UnwritableError, match=f"^{small_disk}/a: the disk is full"),
        temporary_folder("x"),
        whole(small_disk / "a") as partial,
    ):
        partial.write_bytes(bytes(3 * 2**20))


def test_no_temporary_folder_at_all_is_said(monkeypatch):
    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr(files.tempfile, "gettempdir", none)
    said = r"found in \['/tmp', '/var/tmp'\]: make room in one of them, or name another"
    with pytest.raises(UnwritableError, match=said), temporary_folder("x"):
        pass


def test_what_a_temporary_folder_is_called_is_no_matter_to_ants(tmp_path, monkeypatch):
    odd = tmp_path / "Doe, Jane [0] (x) it's ü"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    data = np.random.default_rng(0).random((12, 12, 12), dtype=np.float32) + 1
    data[3:9, 3:9, 3:9] += 5
    field = bias_field_of(Volume(data, Grid(data.shape, np.diag([8.0, 8, 8, 1]))), name="x")
    assert np.isfinite(field).all() and list(odd.iterdir()) == []


def test_a_name_that_is_not_utf8_is_shown(tmp_path, capsys):
    data = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
    save_volume(tmp_path / BAD, data, Grid(data.shape, np.eye(4)))
    assert cli.main(["check", str(tmp_path / BAD)]) == 0
    assert r"OK " in (said := capsys.readouterr().out) and r"sub-\udcff\udce9_T1w.nii.gz: 4 x 5 x 6 voxels" in said


def test_a_result_whose_sidecar_could_not_say_its_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        result_at(tmp_path / BAD, Grid((4, 5, 6), np.eye(4)), ["axial"])


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [(["--help"], {}), (["models", "list"], {}), (["models", "list"], {"PYTHONUNBUFFERED": "1"})],
)
def test_a_reader_that_has_read_enough_is_no_error(words, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | unbuffered
    command = [sys.executable, "-m", "headsr.cli", *words]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_where_the_home_cannot_be_written_caches_lie_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    for home, expected in ((tmp_path, ""), (tmp_path / "file" / "me", f"{tmp_path}/.snakemake/cache")):
        monkeypatch.setenv("HOME", str(home))
        before = dict(os.environ)
        with cli._surroundings_of_children():
            assert os.environ["XDG_CACHE_HOME"] == expected
        assert dict(os.environ) == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
