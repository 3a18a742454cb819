"""`headsr verify` on what `headsr sr` made: whole, or by name what is missing, cut short, changed or out of date."""

import json
import re

import pytest

from headsr import cli
from headsr.files import read_json, sidecar_of
from headsr.sr import record
from headsr.sr.verify import verify_made
from headsr.verify import State

STEM = "sub-01_res-hi_desc-sr_T1w"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def found(*places):
    """What is wrong, as state and name."""
    return {(finding.state, finding.path.rsplit("/")[-1]) for finding in verify_made(places).findings}


def test_what_is_not_as_it_was_made_is_said_by_name(made, capsys):
    anat = made / "sub-01/anat"
    files = {path.name: path.read_bytes() for path in anat.iterdir()}
    volume, residual = f"{STEM}.nii.gz", "sub-01_desc-srresidualAxial_T1w.nii.gz"

    def restore():
        for name, content in files.items():
            (anat / name).write_bytes(content)

    assert found(made) == found(anat / volume) == found(anat / f"{STEM}.json") == set()
    flip(anat / volume)
    assert found(made) == {(State.DAMAGED, volume)}
    (anat / residual).write_bytes(files[residual][:-9])
    assert cli.main(["verify", str(made)]) == 1
    said = capsys.readouterr().out
    assert re.search(rf"DAMAGED .*{volume}: its content is not what was made", said)
    assert re.search(rf"DAMAGED .*{residual}: \d+ bytes, and \d+ when it was made", said)
    assert "the same headsr sr command makes anew" in said
    restore()
    (anat / residual).unlink()
    assert found(made) == {(State.MISSING, residual)}
    restore()
    flip(anat / f"{STEM}.json")
    assert found(made) == {(State.DAMAGED, f"{STEM}.json")}
    (anat / f"{STEM}.json").write_text("{")
    assert found(made) == {(State.DAMAGED, f"{STEM}.json")}
    (anat / f"{STEM}.json").unlink()
    assert found(made) == {(State.MISSING, f"{STEM}.json")}
    restore()
    (made / "dataset_description.json").unlink()
    assert found(made) == {(State.MISSING, "dataset_description.json")}


@pytest.mark.parametrize("said", [b'{"SliceThickness": 5}', b"{", b'{"headsr": {"version": "1"}}'])
def test_a_scan_with_its_own_sidecar_is_no_damaged_result(scan, tmp_path, said):
    path = scan("a_T1w.nii.gz")
    (tmp_path / "a_T1w.json").write_bytes(said)
    for place in (path, tmp_path / "a_T1w.json"):
        with pytest.raises(ValueError, match=rf"{place.name}: holds no result of headsr sr"):
            verify_made([place])


def test_what_would_be_made_otherwise_today_is_said_with_the_reason(made, scan, monkeypatch):
    monkeypatch.setattr(record, "versions", lambda *parts: {"method.spline": 99})
    (finding,) = verify_made([made]).findings
    assert finding.state == State.STALE and "versions.method.spline was" in finding.reason
    monkeypatch.undo()
    scan("bids/sub-01/anat/sub-01_T1w.nii.gz", shape=(48, 50, 11))
    (finding,) = verify_made([made]).findings
    assert finding.state == State.STALE and "another" in finding.reason and "sub-01_T1w.nii.gz" in finding.reason


def test_a_store_is_read_to_its_last_shard(scan, tmp_path):
    out = tmp_path / "results/out.ome.zarr"
    assert cli.main(["sr", str(scan()), str(out), "--gap", "0", "--method", "spline"]) == 0
    assert found(out) == found(tmp_path / "results") == set()
    shard = next(path for path in out.rglob("0/c/0/0/0"))
    flip(shard)
    assert found(out) == {(State.DAMAGED, "zarr.json")}
    shard.unlink()
    assert found(out) == {(State.DAMAGED, "zarr.json")}


def test_what_was_begun_and_never_finished_is_missing_and_what_others_made_is_no_result(made, scan, tmp_path, capsys):
    loose = tmp_path / "loose"
    assert cli.main(["sr", str(scan()), str(loose / "a.b.nii.gz"), "--gap", "0", "--method", "spline"]) == 0
    assert found(loose) == set()
    (loose / "a.b.json").unlink()
    assert found(loose) == {(State.MISSING, "a.b.json")}
    sidecar = made / f"sub-01/anat/{STEM}.json"
    said = read_json(sidecar)
    for key in ("follows_from", "outputs", "seal"):
        said["headsr"].pop(key)
    sidecar.write_text(json.dumps(said))
    assert cli.main(["verify", str(made)]) == 2
    assert "holds no result of headsr sr" in capsys.readouterr().err


def test_a_folder_without_results_and_files_of_others_are_no_result(made, tmp_path, capsys):
    (made / "sub-01/anat/sub-01_T1w.json").write_text(json.dumps({"headsr": "a word"}))
    (made / "notes.json").write_text("{")
    assert found(made) == set()
    assert cli.main(["verify", str(tmp_path / "bids")]) == 2
    assert "holds no result of headsr sr" in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path / "nothing.nii.gz")]) == 1
    assert "MISSING" in capsys.readouterr().out


def test_a_sidecar_that_was_edited_is_made_anew(made, tmp_path):
    sidecar = sidecar_of(made / f"sub-01/anat/{STEM}.nii.gz")
    before = sidecar.read_bytes()
    said = read_json(sidecar)
    said["headsr"]["scans"][0]["thickness_mm"] = 3.0
    sidecar.write_text(json.dumps(said))
    assert found(made) == {(State.DAMAGED, sidecar.name)}
    assert cli.main(["sr", str(tmp_path / "bids"), str(made), "--method", "spline"]) == 0
    assert sidecar.read_bytes() == before
