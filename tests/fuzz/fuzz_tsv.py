"""Tables: scans, label maps, labels, published values and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.damage import damaged_text, pick
from fuzz.outcomes import Input
from fuzz.run import Maker
from numpy.random import Generator

from headsr.evaluate.collect import collect_scores, read_scores
from headsr.files import write_json
from headsr.labelmaps import PinnedMap, read_maps, write_maps
from headsr.recipes.tables import Table, read_published
from headsr.scans import Scan, read_pins, write_scans
from headsr.simulate.labels import read_structures

TABLE = Table(title="t", methods=("spline", "edsr"), degradations=("axial_x4", "axial_x2"), suffixes=("T1w",))
PUBLISHED = """method,degradation,metric,mask,value,source
spline,axial_x4,psnr,head,30.5,"A and B (2021), table 2"
edsr,axial_x4,psnr,,33.1,
edsr,axial_x2,ssim,brain,0.97,B
"""
LABELS = """label\tname\ttissue\tclass\tt1_mean\tt1_mean_sd\tt1_sd\tt1_sd_sd
0\tbackground\tair\t0\t7.0\t1.0\t5.0\t1.0
2\tleft cerebral white matter\t\t2\t160.0\t8.0\t10.0\t1.0
24\tCSF\tcsf\t1\t44.0\t4.0\t20.0\t2.0
"""


class _Read(NamedTuple):
    path: Path
    text: str
    read: Callable[[Path], Any]
    again: Callable[[Path, Any], None] | None  # writes what was read


def prepare(folder: Path) -> Maker:
    """One table of every sort, as its own writer leaves it."""
    sorts = [
        _Read(*_written(folder / "scans.tsv", write_scans, _scans()), read_pins, write_scans),
        _Read(*_written(folder / "labelmaps.tsv", write_maps, _maps()), read_maps, write_maps),
        _Read(folder / "labels.tsv", LABELS, read_structures, None),
        _Read(folder / "published.csv", PUBLISHED, lambda path: read_published(path, TABLE), None),
        _Read(*_written(folder / "scores.tsv", _write_scores, None), read_scores, None),
    ]
    again = folder / "again.tsv"

    def make(rng: Generator) -> Input:
        sort = pick(rng, sorts)
        sort.path.write_bytes(damaged_text(sort.text, rng))

        def is_right(read: Any) -> bool:
            """What was accepted is written and read as it is."""
            if sort.again is None:
                return True
            sort.again(again, read)
            return set(sort.read(again)) == set(read)

        return Input(lambda: sort.read(sort.path), [sort.path.name], is_right)

    return make


def _written(path: Path, write: Callable[[Path, Any], None], content: Any) -> tuple[Path, str]:
    write(path, content)
    return path, path.read_text()


def _scans() -> list[Scan]:
    key = "SHA256E-s10--" + "ab" * 32 + ".nii.gz"
    path = "sub-{0}/anat/sub-{0}_T1w.nii.gz"
    scans = [Scan("demo", f"sub-{n}", f"sub-{n}", "T1w", path.format(n), key, 10, "2.5", "test") for n in ("01", "02")]
    mask = "sub-01/anat/sub-01_label-L_mask.nii.gz"
    lesion = Scan("demo", "sub-01", "sub-01_label-lesion_desc-T1w", "mask", mask, key, 5, "", "used", of=scans[0].name)
    return [*scans, lesion]


def _maps() -> list[PinnedMap]:
    return [PinnedMap("maps", f"sub-{n}", f"{n}.nii.gz", f"GIT-s9--{n}", 9, "train") for n in ("1", "2", "3")]


def _write_scores(path: Path, _: None) -> None:
    unit = {"dataset": "demo", "scan": "sub-01", "suffix": "T1w", "method": "edsr", "degradation": "axial_x4"}
    row = {"variant": "projected", "mask": "head", "metric": "psnr", "value": 30.25}
    said = {"profile": "box", "seed": 3, "trained_on": [], "data_range": 1.0, "source_key": "k"}
    write_json(path.with_suffix(".json"), {"unit": unit, **said, "rows": [row, {**row, "metric": "ssim"}]})
    collect_scores([path.with_suffix(".json")], path)
