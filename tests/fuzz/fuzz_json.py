"""JSON that headsr and datasets lay beside files: sidecars, records, cards, histories, scores, lists and notes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tiny_weights
import torch
from fuzz.damage import damaged_text, damaged_tree, pick
from fuzz.outcomes import Input
from fuzz.run import Maker
from fuzz.tiny_fields import tiny_field
from numpy.random import Generator

from headsr.acquisition.measurement import Protocol, load_study, save_measurement
from headsr.acquisition.operator import Acquisition
from headsr.annex import TreeFile
from headsr.degrade.lowres import simulate_lowres
from headsr.evaluate import curves
from headsr.evaluate.collect import collect_scores
from headsr.evaluate.report import read_residuals, warnings_of
from headsr.history import history_so_far
from headsr.models.card import read_card, table_of, write_card
from headsr.preprocess.sidecar import read_intensities
from headsr.provenance import Content, Record, read_record, write_record
from headsr.recipes import Degradation
from headsr.render.agreement import refuse_other_scans
from headsr.render.air import Air, read_air
from headsr.render.store import recorded_shards, work_folder
from headsr.sidecars import Sidecars, thickness_of
from headsr.slices.dataset import scans_in
from headsr.slices.store import list_training_data
from headsr.training.tracking import record_check, record_scores
from headsr.volumes import Grid, save_volume

HEAD = Grid((8, 9, 10), np.diag([1.0, 1.1, 1.2, 1.0]))


class _Sort(NamedTuple):
    path: Path  # of the file that is damaged
    text: str
    read: Callable[[], Any]


def prepare(folder: Path) -> Maker:
    """One file of every sort, as its own writer leaves it."""
    sorts = [
        sort
        for made in (
            _measured,
            _preprocessed,
            _of_jobs,
            _shipped,
            _histories,
            _scored,
            _of_slices,
            _checked,
            _of_datasets,
        )
        for sort in made(folder / made.__name__)
    ]
    for sort in sorts:
        sort.path.parent.mkdir(parents=True, exist_ok=True)
        sort.path.write_text(sort.text, encoding="utf-8")
        sort.read()

    def make(rng: Generator) -> Input:
        sort = pick(rng, sorts)
        sort.path.write_bytes(_damaged(sort.text, rng))

        def read() -> Any:
            try:
                return sort.read()
            finally:
                sort.path.write_text(sort.text, encoding="utf-8")

        return Input(read, [sort.path.name, f"{sort.path.stem}.nii"])  # of a sidecar: or the scan that it is of

    return make


def _damaged(text: str, rng: Generator) -> bytes:
    if rng.random() < 0.35:
        return damaged_text(text, rng)
    lines = text.splitlines() if text.count("\n{") else [text]
    number = int(rng.integers(len(lines)))
    lines[number] = json.dumps(damaged_tree(json.loads(lines[number]), rng), ensure_ascii=bool(rng.random() < 0.8))
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def _sort(path: Path, content: Any, read: Callable[[], Any]) -> _Sort:
    return _Sort(path, json.dumps(content, indent=1) + "\n", read)


def _measured(folder: Path) -> Sequence[_Sort]:
    """The protocol of a low-resolution scan, for a reconstruction and for a render."""
    thick, scan = HEAD.thick(2, 2), folder / "sub-01_desc-axial_T1w.nii.gz"
    affine = tuple(map(tuple, HEAD.affine.tolist()))
    protocol = Protocol("axial", "box", None, 0.01, HEAD.shape, affine, 800.0, 0.0, "axial_x2", "key")
    data = torch.rand(thick.shape, generator=torch.Generator().manual_seed(0))
    save_measurement(scan, data, thick, protocol, np.ones(thick.shape, bool))
    assert Acquisition(HEAD, thick, axis=2)
    sidecar = folder / "sub-01_desc-axial_T1w.json"
    text = sidecar.read_text()
    field = tiny_field(HEAD)
    return [
        _Sort(sidecar, text, lambda: load_study([scan])),
        _Sort(sidecar, text, lambda: refuse_other_scans(field, [scan])),
    ]


def _preprocessed(folder: Path) -> Sequence[_Sort]:
    """The sidecar of a scan in normalised intensities, for a simulated scan and for scores."""
    scan, mask = folder / "sub-02_T1w.nii.gz", folder / "sub-02_mask.nii.gz"
    save_volume(scan, np.random.default_rng(1).random(HEAD.shape).astype(np.float32), HEAD)
    save_volume(mask, np.ones(HEAD.shape, np.uint8), HEAD)
    said = {"headsr": {"scale": 800.0, "offset": 0.0, "source_key": "k"}, "SkullStripped": False}
    acquired = Degradation(kind="acquired")

    def degrade() -> None:
        simulate_lowres(
            scan, folder / "sub-02_desc-acquired_T1w.nii.gz", head_mask=mask, name="x", view="acquired", signed=False,
            degradation=acquired, degradation_name="acquired", source_key="k", thickness="1.2",
        )  # fmt: skip

    sidecar = folder / "sub-02_T1w.json"
    return [_sort(sidecar, said, lambda: read_intensities(scan)), _sort(sidecar, said, degrade)]


def _of_jobs(folder: Path) -> Sequence[_Sort]:
    path = folder / "records" / "job.json"
    content = {"a.nii.gz": Content("ab" * 32, 10)}
    write_record(path, Record("score", {"score": 1}, {"p": [1]}, {"b": "ab" * 32}, content, content, "0.1", "c", ["w"]))
    text = path.read_text()
    return [_Sort(path, text, lambda: read_record(path)), _Sort(path, text, lambda: warnings_of(folder / "records"))]


def _shipped(folder: Path) -> Sequence[_Sort]:
    card = tiny_weights.shipped(folder)
    write_card("tiny", card, folder)
    path = folder / "tiny.json"
    return [_Sort(path, path.read_text(), lambda: table_of({"tiny": read_card("tiny", folder)}))]


def _histories(folder: Path) -> Sequence[_Sort]:
    path = folder / "history.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in tiny_weights.HISTORY)
    return [
        _Sort(path, text, lambda: history_so_far([path, path])),
        _Sort(path, text, lambda: curves.series_of(path)),
    ]


def _scored(folder: Path) -> Sequence[_Sort]:
    path = folder / "score.json"
    unit = {"dataset": "demo", "scan": "sub-01", "suffix": "T1w", "method": "edsr", "degradation": "axial_x4"}
    row = {"variant": "projected", "mask": "head", "metric": "psnr", "value": 30.25}
    trained = [{"model": "edsr", "training_keys": "k", "sha256": "s"}]
    said = {"profile": "box", "seed": 3, "trained_on": trained, "data_range": 1.0, "source_key": "k", "unit": unit}
    content = {**said, "rows": [row, {**row, "metric": "ssim", "n": 3, "error": 0.5}]}
    return [
        _sort(path, content, lambda: collect_scores([path], folder / "scores.tsv")),
        _sort(path, content, lambda: record_scores([path])),
    ]


def _of_slices(folder: Path) -> Sequence[_Sort]:
    mark, index = folder / "sub-01.zarr" / "zarr.json", folder / "training.json"
    said = {"source_key": "k", "pixel_mm": {"axial": [1.0, 1.0]}, "counts": {"axial": 3}, "content": "c"}
    stores = [("a", "train", "T1w", str(mark)), ("b", "val", "T1w", str(mark))]
    entry = {"name": "a", "split": "train", "suffix": "T1w", "store": "sub-01.zarr", **said}
    group = {"zarr_format": 3, "node_type": "group", "attributes": said}
    return [
        _sort(mark, group, lambda: list_training_data(stores, folder / "made.json")),
        _sort(index, {"stores": [entry]}, lambda: scans_in(index, "train")),
    ]


def _checked(folder: Path) -> Sequence[_Sort]:
    path = folder / "sub-01_desc-check_T1w.json"
    keys = ("rms_before", "rms_after", "rms_before_everywhere", "rms_after_everywhere", "allowed")
    views = {"axial": {**dict.fromkeys(keys, 0.01), "map": "x.nii.gz"}}
    said = {"views": views, "projection": {"outcome": "within"}, "degradation": "axial_x4", "source_key": "k"}
    return [
        _sort(path, {"headsr": said}, lambda: read_residuals({"edsr axial_x4 demo/sub-01_T1w": path})),
        _sort(path, {"headsr": said}, lambda: record_check(path, name="edsr axial_x4 demo/sub-01_T1w")),
    ]


def _of_datasets(folder: Path) -> Sequence[_Sort]:
    """The sidecar of a scan in somebody's dataset: what is wrong with it is a warning, and its thickness unknown."""
    path = folder / "sub-01_T1w.json"

    def thickness() -> str:
        file = TreeFile("sub-01/anat/sub-01_T1w.json", "k", 1, path.read_bytes())
        return thickness_of(Sidecars([file]).about("sub-01_T1w", "sub-01/anat"), {})

    return [_sort(path, {"SliceThickness": 2.5, "EchoTime": 0.003, "Manufacturer": "x"}, thickness), *_notes(folder)]


def _notes(folder: Path) -> Sequence[_Sort]:
    """What a render that was killed left: a line a shard, and where there is only air."""
    store = folder / "sub-01.ome.zarr" / "zarr.json"
    notes, air = work_folder(store) / "shards-x-1.jsonl", folder / "air.json"
    lines = [json.dumps({"key": f"0/c/0/0/{n}", "sha256": "ab" * 32, "size": 9}) for n in range(3)]

    empty = Air(np.zeros((2, 2, 2), bool), background=0.0)
    return [
        _Sort(notes, "\n".join(lines) + "\n", lambda: recorded_shards(store)),
        _sort(air, empty.as_json(), lambda: read_air(air)),
    ]
