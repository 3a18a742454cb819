"""``headsr pin`` and ``headsr check`` on datasets of ten layouts that users have, in real git-annex repositories."""

import gzip
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from headsr.annex import run_tool
from headsr.cli import main
from headsr.scans import Scan, read_scans
from headsr.sourcedata import fetch_scan
from headsr.volumes import Grid, save_volume

Content = bytes | dict
IMAGE, PLAIN_IMAGE = b"image", b"plain"  # stand for a tiny head, gzipped and not
OTHER = b"of no use here"


@dataclass(frozen=True)
class Layout:
    """Files of a dataset; the thickness of every scan that they hold; what is said of those that are none.

    ``annexed`` are the endings of what git-annex holds, ``people`` those that are subdatasets.
    """

    files: Mapping[str, Content]
    thickness: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    annexed: tuple[str, ...] = (".nii.gz", ".nii")
    people: tuple[str, ...] = field(default=())


def mm(thickness: float) -> dict:
    return {"SliceThickness": thickness, "Manufacturer": "made up"}


LAYOUTS = {
    "plain": Layout(
        {
            "sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_T1w.json": mm(1),
            "sub-02/anat/sub-02_FLAIR.nii.gz": IMAGE,
            "sub-02/anat/sub-02_FLAIR.json": mm(5.5),
        },
        {"sub-01_T1w": "1", "sub-02_FLAIR": "5.5"},
    ),
    "sessions": Layout(
        {
            "ses-pre_T2w.json": mm(4),
            "sub-01/ses-pre/anat/sub-01_ses-pre_T2w.nii.gz": IMAGE,
            "sub-01/ses-post/anat/sub-01_ses-post_T2w.nii.gz": IMAGE,
            "sub-01/ses-post/anat/sub-01_ses-pre_T1w.nii.gz": OTHER,
        },
        {"sub-01_ses-pre_T2w": "4", "sub-01_ses-post_T2w": ""},
        ("1 image in the folder of another person or session than its name says: sub-01/ses-post/anat/sub-01_ses-pre",),
    ),
    "runs and acquisitions": Layout(
        {
            "sub-01/anat/sub-01_acq-thick_T2w.json": mm(6),
            "sub-01/anat/sub-01_acq-thick_run-1_T2w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_acq-thick_run-2_T2w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_acq-thick_run-2_T2w.json": mm(3),
            "sub-01/anat/sub-01_ce-gd_rec-norm_T1w.nii.gz": IMAGE,
        },
        {"sub-01_acq-thick_run-1_T2w": "6", "sub-01_acq-thick_run-2_T2w": "3", "sub-01_ce-gd_rec-norm_T1w": ""},
    ),
    "nii": Layout(
        {
            "sub-01/anat/sub-01_T1w.nii": PLAIN_IMAGE,
            "sub-01/anat/sub-01_T1w.json": mm(2),
            "sub-02/anat/sub-02_T1w.nii": PLAIN_IMAGE,
            "sub-02/anat/sub-02_T1w.nii.gz": IMAGE,
        },
        {"sub-01_T1w": "2", "sub-02_T1w": ""},
        ("1 image beside a .nii.gz of the same name: sub-02/anat/sub-02_T1w.nii",),
    ),
    "annexed sidecars": Layout(
        {
            "T1w.json": mm(9),
            "sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_T1w.json": mm(2.5),
            "sub-02/anat/sub-02_T1w.nii.gz": IMAGE,
            "sub-02/anat/sub-02_T1w.json": {"EchoTime": 0.01},
        },
        {"sub-01_T1w": "2.5", "sub-02_T1w": "9"},
        annexed=(".nii.gz", ".json"),
    ),
    "inherited sidecars": Layout(
        {
            "T2w.json": mm(1),
            "acq-thick_T2w.json": mm(5),
            "sub-01/acq-thick_T2w.json": mm(5.5),
            "sub-01/sub-01_run-2_T2w.json": mm(7),
            "sub-01/anat/sub-01_acq-thick_T2w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_run-2_T2w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_T2w.nii.gz": IMAGE,
            "sub-02/anat/sub-02_acq-thick_T2w.nii.gz": IMAGE,
        },
        {"sub-01_acq-thick_T2w": "5.5", "sub-01_run-2_T2w": "7", "sub-01_T2w": "1", "sub-02_acq-thick_T2w": "5"},
    ),
    "subdatasets": Layout(
        {
            "acq-thick_T1w.json": mm(5),
            "sub-01/anat/sub-01_acq-thick_T1w.nii.gz": IMAGE,
            "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz": IMAGE,
            "sub-02/ses-a/anat/sub-02_ses-a_T1w.json": mm(3),
            "sub-03/anat/sub-03_T1w.nii.gz": IMAGE,
            "sourcedata/raw/sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
        },
        {"sub-01_acq-thick_T1w": "5", "sub-02_ses-a_T1w": "3", "sub-03_T1w": ""},
        ("sourcedata/raw (",),
        annexed=(".nii.gz", "ses-a_T1w.json"),
        people=("sub-01", "sub-02", "sourcedata/raw"),
    ),
    "derivatives": Layout(
        {
            "sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
            "sub-01/func/sub-01_task-rest_bold.nii.gz": OTHER,
            "derivatives/prep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz": OTHER,
            "derivatives/prep/sub-01/anat/sub-01_T1w.nii.gz": OTHER,
            "sourcedata/sub-01/0001.dcm": OTHER,
        },
        {"sub-01_T1w": ""},
        ("3 images outside the folders of people", "1 image in func, not in anat: sub-01/func/"),
    ),
    "parts, echoes and CT": Layout(
        {
            "sub-01/anat/sub-01_echo-1_part-mag_T2w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_echo-1_part-phase_T2w.nii.gz": OTHER,
            "sub-01/anat/sub-01_echo-2_part-mag_T2w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_echo-2_part-phase_T2w.nii.gz": OTHER,
            "sub-01/anat/sub-01_chunk-1_T1w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_task-rest_T1w.nii.gz": IMAGE,
            "sub-01/anat/sub-01_CT.nii.gz": OTHER,
            "sub-01/anat/sub-01_UNIT1.nii.gz": OTHER,
            "sub-01/anat/sub-01_inv-1_T1w.nii.gz": OTHER,
            "sub-01/anat/sub-01_part-_T1w.nii.gz": OTHER,
            "sub-01/anat/sub-01_part-magic_T1w.nii.gz": OTHER,
        },
        {
            "sub-01_echo-1_part-mag_T2w": "",
            "sub-01_echo-2_part-mag_T2w": "",
            "sub-01_chunk-1_T1w": "",
            "sub-01_task-rest_T1w": "",
        },
        (
            "4 images of another part of a complex image than its magnitude (part-): sub-01/anat/sub-01_echo-1_part",
            "1 image of suffix CT, which headsr does not take yet: sub-01/anat/sub-01_CT.nii.gz",
            "1 image of suffix UNIT1, none of T1w, T2w, PDw, FLAIR: ",
            "1 image with inv-, an entity that no scan of headsr has: ",
        ),
    ),
    "mixed": Layout(
        {
            "participants.tsv": b"\xef\xbb\xbfparticipant_id\r\nsub-01\r\n",
            "sub-01/anat/sub-01_T1w.nii": PLAIN_IMAGE,  # git itself holds it
            "sub-01/anat/sub-01_T1w.json": b'\xef\xbb\xbf{"SliceThickness": 2, "Name": "M\xfcller"}',
            "sub-02/ses-a/anat/sub-02_ses-a_acq-x_run-1_PDw.nii.gz": IMAGE,
            "sub-02/ses-a/acq-x_PDw.json": mm(4),
            "sub-03/anat/sub-03_t1w.nii.gz": OTHER,
            "sub-04/sub-04_T1w.nii.gz": OTHER,
            "scan.nii.gz": OTHER,
        },
        {"sub-01_T1w": "2", "sub-02_ses-a_acq-x_run-1_PDw": "4"},
        (
            "1 image without a scan's name (",
            "1 image beside an anat folder, not in it: sub-04/sub-04_T1w.nii.gz",
            "1 image outside the folders of people (sub-*): scan.nii.gz",
        ),
        annexed=(".nii.gz", "PDw.json"),
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, bytes]:
    """The bytes of a tiny head, gzipped and not."""
    folder, grid = tmp_path_factory.mktemp("images"), Grid((22, 26, 22), np.diag([9.0, 9.0, 9.0, 1.0]))
    x, y, z = (
        np.linspace(-1.2, 1.2, n).reshape([-1 if i == a else 1 for i in range(3)]) for a, n in enumerate(grid.shape)
    )
    radius, rng = np.sqrt(x**2 + y**2 + z**2), np.random.default_rng(0)
    head = np.where(radius < 0.8, 500 + 100 * np.sin(7 * x) * np.cos(5 * y), 0) + 300 * ((radius > 0.9) & (radius < 1))
    save_volume(folder / "head.nii.gz", np.abs(head + 10 * rng.standard_normal(grid.shape)).astype(np.float32), grid)
    packed = (folder / "head.nii.gz").read_bytes()
    return {IMAGE: packed, PLAIN_IMAGE: gzip.decompress(packed)}


def make_repository(at: Path, files: Mapping[str, bytes], annexed: tuple[str, ...]) -> None:
    run_tool(["git", "init", "-q", "-b", "main", at])
    run_tool(["git", "-C", at, "annex", "init", "-q"])
    for name, content in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(content)
    if held := [name for name in files if name.endswith(annexed)]:
        run_tool(["git", "-C", at, "annex", "add", "-q", *held])


def commit(at: Path) -> None:
    run_tool(["git", "-C", at, "-c", "annex.largefiles=nothing", "add", "-A"])
    run_tool(["git", "-C", at, "commit", "-q", "-m", "scans"])


@pytest.fixture
def make(images: dict[bytes, bytes], tmp_path: Path) -> Callable[[Layout], Path]:
    """A function that makes the dataset of a layout, tagged v1."""

    def dataset(layout: Layout) -> Path:
        origin = tmp_path / "origin"
        parts: dict[str, dict[str, bytes]] = {part: {} for part in ("", *layout.people)}
        for name, content in layout.files.items():
            part = next((part for part in layout.people if name.startswith(f"{part}/")), "")
            text = json.dumps(content).encode() if isinstance(content, dict) else images.get(content, content)
            parts[part][name.removeprefix(f"{part}/") if part else name] = text
        make_repository(origin, {"dataset_description.json": b"{}", **parts.pop("")}, layout.annexed)
        for part, files in parts.items():
            elsewhere = tmp_path / "parts" / part
            make_repository(elsewhere, files, layout.annexed)
            commit(elsewhere)
            allowed = ["git", "-c", "protocol.file.allow=always", "-C", origin]
            run_tool([*allowed, "submodule", "add", "-q", elsewhere, part])
        commit(origin)
        run_tool(["git", "-C", origin, "tag", "v1"])
        return origin

    return dataset


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, in which commands are run, whose delta describes the dataset ``origin``."""
    folder = tmp_path / "project"
    shutil.copytree("config", folder / "config")
    described = {"url": "../origin", "version": "v1", "license": "CC0", "citation": "nobody"}
    delta = {"scans": "scans.tsv", "overrides": {"datasets": {"demo": described}}}
    (folder / "own.yaml").write_text(yaml.safe_dump(delta))
    monkeypatch.chdir(folder)
    return folder


def pin() -> tuple[int, dict[str, Scan]]:
    code = main(["pin", "demo", "--configfile", "own.yaml"])
    return code, {f"{scan.scan}_{scan.suffix}": scan for scan in read_scans("scans.tsv")}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_scan_of_a_layout_is_pinned_and_the_rest_is_counted(
    name: str,
    make: Callable[[Layout], Path],
    project: Path,
    images: dict[bytes, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    layout = LAYOUTS[name]
    origin = make(layout)
    code, rows = pin()
    said = capsys.readouterr().out
    assert code == 0
    assert {scan: row.thickness for scan, row in rows.items()} == layout.thickness
    lines = said.partition("left out (bids_names can name an image):\n")[2].splitlines()
    lines = [line.removeprefix("  demo: ") for line in lines if line.startswith("  ")]
    assert len(lines) == len(layout.left_out), said
    for words in layout.left_out:
        assert any(line.startswith(words) for line in lines), (words, said)

    for row in list(rows.values())[:2]:
        fetch_scan("got.nii.gz", clone="results/clones/demo", path=row.path, name=row.name, key=row.key)
        assert gzip.decompress(Path("got.nii.gz").read_bytes()) == images[PLAIN_IMAGE]
    # Of a subdataset that was added from elsewhere git-annex has the content there.
    places = (origin, tmp_path / "parts")
    scans = [next(str(place / row.path) for place in places if (place / row.path).exists()) for row in rows.values()]
    assert main(["check", *scans]) == 0
    assert capsys.readouterr().out.count("OK ") == len(rows)

    table = Path("scans.tsv").read_bytes()
    assert pin()[0] == 0 and Path("scans.tsv").read_bytes() == table
