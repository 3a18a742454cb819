"""JSON that is not what headsr wrote is refused by file and key, before anything is computed with it."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from headsr.acquisition.measurement import Protocol, load_study, save_measurement
from headsr.acquisition.protocol import read_protocol
from headsr.evaluate.checked import read_check
from headsr.evaluate.collect import collect_scores
from headsr.files import UnreadableError
from headsr.history import read_history
from headsr.preprocess.sidecar import read_intensities, read_skull_stripped
from headsr.provenance import RecordError, read_record
from headsr.render.air import Air, read_air
from headsr.render.shard import Written
from headsr.render.store import record_shard, recorded_shards, work_folder
from headsr.slices.dataset import scans_in
from headsr.slices.store import list_training_data
from headsr.typed_json import read_as
from headsr.volumes import Grid

HEAD = Grid((4, 5, 6), np.eye(4))
PROTOCOL = Protocol("axial", "box", None, 0.01, HEAD.shape, tuple(map(tuple, np.eye(4).tolist())), 8.0, 0.0, "d", "k")
RECORD = {
    "rule": "score", "stage": {"score": 1}, "params": {}, "sources": {}, "outputs": {}, "beside": {}, "version": "1",
    "commit": "c", "warnings": [],
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    mm: float
    names: tuple[str, ...] = ()


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_what_a_class_has_no_field_for_is_left_alone(tmp_path):
    path = written(tmp_path / "a.json", {"headsr": {"mm": 2, "names": ["x"], "more": []}})
    assert read_as(Size, path, "headsr") == Size(2.0, ("x",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"says no headsr\. Move it away and run again"),
        ({"headsr": []}, r"headsr: must be a block of keys, not \[\]"),
        ({"headsr": {}}, "headsr: the key 'mm' is missing"),
        ({"headsr": {"mm": "2"}}, r"headsr\.mm: '2' is text"),
        ({"headsr": {"mm": True}}, r"headsr\.mm: True is not float"),
        ({"headsr": {"mm": 1, "names": [2]}}, r"headsr\.names\[0\]: 2 is no text"),
        ([], r"says no headsr"),
        (None, r"says no headsr"),
    ],
)
def test_what_is_missing_or_of_another_type_is_named(tmp_path, content, message):
    path = written(tmp_path / "a.json", content)
    with pytest.raises(UnreadableError, match=rf"^{path}: {message}"):
        read_as(Size, path, "headsr")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnreadableError, match=r"a\.json: does not exist\. Run again what makes it"):
        read_as(Size, tmp_path / "a.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("view", ["axial"], r"headsr\.view: \['axial'\] is not str"),
        ("scale", 0, "scale: 0 is no scale"),
        ("noise", -1, "noise -1 and thickness None must not be below 0"),
        ("head_shape", [4, 5], r"headsr\.head_shape: needs 3 values, not 2"),
        ("head_shape", [0, 5, 6], "a grid needs three positive sizes"),
        ("head_affine", [[0] * 4] * 3 + [[0, 0, 0, 1]], "the affine of a grid must be invertible"),
        ("head_affine", [*np.eye(4).tolist()[:3], [0] * 4], "the last row of the affine of a grid must be 0 0 0 1"),
        ("head_affine", [[1, 0, 0, 0], [0, 1, 0, 0], [0, -32768, 1, 0], [0, 0, 0, 1]], "head_affine: voxels of"),
        ("source_key", None, r"headsr\.source_key: None is not str"),
    ],
)
def test_the_protocol_of_a_scan_is_checked_wherever_it_is_read(tmp_path, key, value, message):
    scan = tmp_path / "sub-01_desc-axial_T1w.nii.gz"
    save_measurement(scan, torch.rand(4, 5, 3), HEAD.thick(2, 2), PROTOCOL, np.ones((4, 5, 3), bool))
    assert load_study([scan]).scale == 8.0
    sidecar = tmp_path / "sub-01_desc-axial_T1w.json"
    said = json.loads(sidecar.read_text())
    written(sidecar, {"headsr": {**said["headsr"], key: value}})
    for read in (read_protocol, lambda path: load_study([path])):
        with pytest.raises(UnreadableError, match=rf"^{sidecar}: {message}|{sidecar}: headsr: {message}"):
            read(scan)


@pytest.mark.parametrize(
    "said", [[], {}, {"headsr": None}, {"headsr": {"scale": 0, "offset": 0}}, {"headsr": {"scale": 1}}]
)
def test_a_preprocessed_scan_says_what_leads_back_to_its_units(tmp_path, said):
    sidecar = written(tmp_path / "sub-01_T1w.json", said)
    with pytest.raises(UnreadableError, match=rf"^{sidecar}: "):
        read_intensities(tmp_path / "sub-01_T1w.nii.gz")
    written(sidecar, {"SkullStripped": "no"})
    with pytest.raises(UnreadableError, match=rf"^{sidecar}: its content\.SkullStripped: 'no' is not bool"):
        read_skull_stripped(tmp_path / "sub-01_T1w.nii.gz")


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": []}, {"outputs": {"a": None}}, {"outputs": {"a": {"sha256": 1, "bytes": 2}}}, {"warnings": "x"},
        {"params": None}, {"rule": 3}, {"more": 1},
    ],
)  # fmt: skip
def test_a_record_of_another_type_is_refused_by_its_name(tmp_path, change):
    assert read_record(written(tmp_path / "r.json", RECORD)).rule == "score"
    with pytest.raises(RecordError, match=r"r\.json: not a record of a job \("):
        read_record(written(tmp_path / "r.json", RECORD | change))
    with pytest.raises(RecordError, match=r"r\.json: not a record of a job \("):
        read_record(written(tmp_path / "r.json", [change]))


@pytest.mark.parametrize("line", ["[]", "null", '"key"', "3", '{"key": [], "sha256": "a", "size": 1}', "[" * 100_000])
def test_a_note_of_a_render_that_is_none_does_not_count(tmp_path, line):
    store = tmp_path / "x.ome.zarr" / "zarr.json"
    work_folder(store).mkdir(parents=True)
    record_shard(store, "0/c/0/0/0", Written("ab", 9))
    (notes,) = work_folder(store).glob("shards-*.jsonl")
    notes.write_text(notes.read_text() + f"\n{line}\n")
    assert recorded_shards(store) == {"0/c/0/0/0": Written("ab", 9)}


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 2]},
        {"shape": [2, 2, 999]},
        {"shape": [10**9, 10**9, 10**9]},
        {"empty": "x"},
        {"empty": []},
        {"worst": "1"},
    ],
)
def test_air_that_is_not_that_of_its_shape_is_refused(tmp_path, change):
    said = Air(np.zeros((2, 2, 2), bool), background=0.0).as_json()
    with pytest.raises(UnreadableError, match=r"air\.json: its content"):
        read_air(written(tmp_path / "air.json", said | change))


@pytest.mark.parametrize(
    "content", [[], {}, {"stores": {}}, {"stores": [[]]}, {"stores": [{"name": "a", "split": "train"}]}]
)
def test_a_list_of_training_data_that_is_none_is_refused(tmp_path, content):
    with pytest.raises(UnreadableError, match=r"training\.json: "):
        scans_in(written(tmp_path / "training.json", content), "train")


@pytest.mark.parametrize("content", [[], {"attributes": []}, {"attributes": {"source_key": 1}}])
def test_a_mark_of_no_store_of_slices_is_refused(tmp_path, content):
    mark = written(tmp_path / "a.zarr" / "zarr.json", content)
    with pytest.raises(ValueError, match=r"zarr\.json: is not a store of slices"):
        list_training_data([("a", "train", "T1w", str(mark))], tmp_path / "training.json")


@pytest.mark.parametrize(
    "content", [[], {"headsr": {"views": []}}, {"headsr": {"views": {"axial": {"rms_before": 1}}}}]
)
def test_a_check_that_is_none_is_refused(tmp_path, content):
    with pytest.raises(UnreadableError, match=r"check\.json: .*headsr"):
        read_check(written(tmp_path / "check.json", content))


@pytest.mark.parametrize(
    "change",
    [{"unit": []}, {"rows": {}}, {"rows": [[]]}, {"seed": "3"}, {"trained_on": [3]}, {"data_range": None}]
    + [
        {"rows": [{"variant": "v", "mask": "m", "metric": "psnr", "value": value}]}
        for value in (None, [], "many", True)
    ],
)
def test_scores_of_another_type_are_refused(tmp_path, change):
    unit = dict.fromkeys(("dataset", "scan", "suffix", "method", "degradation"), "x")
    row = {"variant": "v", "mask": "m", "metric": "psnr", "value": "inf"}
    said = {
        "unit": unit,
        "rows": [row],
        "profile": "",
        "seed": None,
        "trained_on": [],
        "data_range": 1,
        "source_key": "",
    }
    collect_scores([written(tmp_path / "score.json", said)], tmp_path / "all.tsv")
    with pytest.raises(UnreadableError, match=r"score\.json: its content"):
        collect_scores([written(tmp_path / "score.json", said | change)], tmp_path / "all.tsv")


@pytest.mark.parametrize(
    "line", ["[]", "null", "{}", '{"step": "1"}', '{"step": 1, "a": []}', '{"step": 1, "a": NaN}', "{"]
)
def test_a_line_that_is_none_of_a_history_is_named(tmp_path, line):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 0, "a": 1.5}\n' + line + "\n")
    with pytest.raises(UnreadableError, match=r"history\.jsonl, line 2: is no line of a history"):
        read_history(path)
