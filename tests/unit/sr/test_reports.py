"""What users of other programs reported, tried on headsr (docs/results/reports.md); each case names its report."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from headsr import cli
from headsr.fields.load import FieldError, load_field
from headsr.files import parse_metadata
from headsr.preprocess import ants_process, bias
from headsr.simulate.store import StoreError, open_anatomy
from headsr.sr import dataset
from headsr.sr.given import Slices, read_given, refuse_twins
from headsr.training.tracking import flat
from headsr.volumes import Grid, VolumeError, load_volume, save_volume
from headsr.weights import StateError, read_metadata


def nifti(path, data=None, **fields):
    """Write a NIfTI file with fields of its header as they are given, right or wrong."""
    data = np.random.default_rng(1).integers(1, 99, (4, 5, 6)).astype(np.int16) if data is None else data
    image = nib.Nifti1Image(data, np.diag([-1.0, 2, 3, 1]), dtype=data.dtype)
    header = nib.Nifti1Header(image.to_bytes()[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + image.to_bytes()[348:])
    return data


class TestHeaders:
    def test_a_slope_of_0_is_no_scaling(self, tmp_path):
        """layerfMRI/LAYNII#88: all voxels became zero."""
        data = nifti(tmp_path / "scan.nii", scl_slope=0, scl_inter=5)
        assert np.array_equal(load_volume(tmp_path / "scan.nii").data, data[::-1])

    def test_a_slope_that_readers_take_in_two_ways_is_refused_with_the_way_out(self, tmp_path):
        """nipreps/fmriprep#2507: NaN, which nibabel took for no scaling and FSL for zero."""
        nifti(tmp_path / "mask.nii", scl_slope=np.nan, scl_inter=np.nan)
        with pytest.raises(VolumeError, match=r"mask\.nii: its scl_slope is nan.*set it to 1 and scl_inter to 0"):
            load_volume(tmp_path / "mask.nii")

    @pytest.mark.parametrize("axes", ["LAS", "RAS", "PIR"])
    def test_both_forms_of_what_is_written_say_the_same(self, tmp_path, axes):
        """freesurfer/surfa#4: pixdim[0] was always 1, and the qform upside down."""
        data = np.random.default_rng(2).random((4, 5, 6), dtype=np.float32)
        save_volume(tmp_path / "out.nii", data, Grid(data.shape, np.diag([1.0, 2, 3, 1])), axes=axes)
        header = nib.load(tmp_path / "out.nii").header
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-5)
        assert header["pixdim"][0] == (-1 if np.linalg.det(header.get_sform()) < 0 else 1)

    def test_int64_is_read_and_what_is_made_of_it_is_none(self, tmp_path):
        """nilearn/nilearn#3167: results in int64, which FSL, SPM and AFNI do not read."""
        data = nifti(tmp_path / "scan.nii", np.arange(120, dtype=np.int64).reshape(4, 5, 6))
        volume = load_volume(tmp_path / "scan.nii")
        assert np.array_equal(volume.data, data[::-1])
        save_volume(tmp_path / "out.nii", volume.data, volume.grid)
        assert nib.load(tmp_path / "out.nii").get_data_dtype() == np.float32

    def test_an_extension_that_is_announced_and_not_there_is_no_matter(self, tmp_path):
        """rii-mango/NIFTI-Reader-JS#35: an error where other viewers showed the image."""
        data = nifti(tmp_path / "scan.nii")
        content = bytearray((tmp_path / "scan.nii").read_bytes())
        content[348] = 1
        (tmp_path / "scan.nii").write_bytes(content)
        assert np.array_equal(load_volume(tmp_path / "scan.nii").data, data[::-1])

    @pytest.mark.parametrize("offset", [0, 348])
    def test_voxels_inside_of_the_header_are_named_as_that(self, tmp_path, offset):
        """epam/mriviewer#249: read from the wrong place, left half at the right."""
        nifti(tmp_path / "scan.nii", vox_offset=offset)
        with pytest.raises(VolumeError, match=r"scan\.nii: is not a readable NIfTI .*(inside of its header|too low)"):
            load_volume(tmp_path / "scan.nii")

    def test_axes_that_are_not_at_right_angles_are_read(self, tmp_path):
        """TorchIO-project/torchio#1467: shape and affine could not be read."""
        sheared = np.array([[-1.0, 0, 0, 4], [0, 2, 0.4, 5], [0, 0, 3, 6]])
        nifti(tmp_path / "scan.nii", srow_x=sheared[0], srow_y=sheared[1], srow_z=sheared[2])
        assert load_volume(tmp_path / "scan.nii").grid.affine[1, 2] == pytest.approx(0.4)

    def test_forms_that_disagree_are_refused(self, tmp_path):
        """TorchIO-project/torchio#469: two readers, two orientations."""
        nifti(tmp_path / "scan.nii", qform_code=1, quatern_d=0, pixdim=[1, 1, 2, 3, 0, 0, 0, 0])
        with pytest.raises(VolumeError, match=r"sform and qform disagree by .* mm.*left"):
            load_volume(tmp_path / "scan.nii")

    def test_voxels_without_a_number_are_counted_and_refused(self, tmp_path):
        """OHBA-analysis/osl-ephys#262: a segmentation fault."""
        data = np.ones((4, 5, 6), np.float32)
        data[0, :2, 0] = np.nan
        nifti(tmp_path / "scan.nii", data)
        with pytest.raises(VolumeError, match=r"scan\.nii: 2 of 120 voxels are NaN or infinite"):
            load_volume(tmp_path / "scan.nii")


class TestFiles:
    def test_content_that_was_not_fetched_is_named_with_the_way_to_get_it(self, tmp_path, capsys):
        """bids-standard/legacy-validator#197: ENOENT of a place that nobody had named."""
        (tmp_path / "scan.nii.gz").symlink_to(".git/annex/objects/x/y/MD5E-s1--0.nii.gz")
        assert cli.main(["check", str(tmp_path / "scan.nii.gz")]) == 3
        assert "scan.nii.gz" in (said := capsys.readouterr().out) and "datalad get" in said

    @pytest.mark.parametrize(
        ("make", "why"),
        [
            (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
            (lambda path: path.mkdir(), "Is a directory"),
        ],
        ids=["loop", "folder"],
    )
    def test_what_cannot_be_read_is_not_called_damaged(self, tmp_path, make, why):
        """nipreps/fmriprep#3307: an error that named something else than what was wrong."""
        path = tmp_path / "scan.nii.gz"
        make(path)
        with pytest.raises(VolumeError, match=rf"scan\.nii\.gz: cannot be read \({why}\)"):
            load_volume(path)
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(gzip.compress(b"x" * 400)[:-4])
        with pytest.raises(VolumeError, match=r"scan\.nii\.gz: is (damaged|not a readable NIfTI)"):
            load_volume(path)

    @pytest.mark.parametrize(
        ("read", "error"), [(read_metadata, StateError), (open_anatomy, StoreError), (load_field, FieldError)]
    )
    def test_nor_is_what_headsr_keeps(self, tmp_path, read, error):
        """nipreps/fmriprep#3307, of weights, anatomies and fields."""
        (tmp_path / "kept.safetensors").mkdir()
        with pytest.raises(error, match=r"kept\.safetensors: cannot be read: .*(directory|device)"):
            read(tmp_path / "kept.safetensors")

    def test_programs_that_are_started_import_nothing_from_where_they_are(self, tmp_path, monkeypatch, capsys):
        """numpy/numpy#16753: a random.py in the folder was imported instead of Python's."""
        for name in ("random", "json", "signal", "numpy"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        ants = subprocess.run([*ants_process._child_command(), "none"], capture_output=True, text=True)
        assert "'none' is not one of" in ants.stderr
        assert subprocess.run([sys.executable, "-c", "import random, json"], capture_output=True).returncode == 1
        with cli._surroundings_of_children():
            assert subprocess.run([sys.executable, "-c", "import random, json"]).returncode == 0

    def test_a_terminal_that_knows_few_characters_is_told_what_it_can_show(self, tmp_path, monkeypatch):
        """nipy/mindboggle#200: UnicodeEncodeError, after hours, where the locale knew ASCII alone."""
        nifti(tmp_path / "Z\u00fcrich.nii")
        terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", terminal)
        assert cli.main(["check", str(tmp_path / "Z\u00fcrich.nii")]) == 0
        terminal.flush()
        assert rb"Z\xfcrich.nii" in terminal.buffer.getvalue()

    def test_n4_is_given_nothing_negative(self, monkeypatch):
        """ANTsX/ANTs#822: negative intensities turned the corrected image negative everywhere."""
        given = []

        def run_ants(program, arguments, *, output, scan):
            image = load_volume(Path(output).with_name(arguments[arguments.index("-i") + 1]))
            given.append(float(image.data.min()))
            save_volume(output, np.ones_like(image.data), image.grid)

        monkeypatch.setattr(bias, "run_ants", run_ants)
        data = np.full((24, 24, 24), -300, np.float32)
        data[6:18, 6:18, 6:18] = np.random.default_rng(3).uniform(500, 900, (12, 12, 12))
        volume = load_volume_of(data)
        assert np.allclose(bias.bias_field_of(volume, name="scan"), 1)
        assert given == [0.0]

    def test_what_mlflow_is_told_is_cut_to_what_it_takes(self):
        """microsoft/qlib#1317: a parameter longer than MLflow takes ended the training."""
        assert {len(text) for text in flat({"a": "x" * 10_000, "b": {"c": list(range(5000))}}).values()} == {6000}


def load_volume_of(data):
    from headsr.volumes import Volume

    return Volume(data, Grid(data.shape, np.diag([4.0, 4, 4, 1])))


SAYS = b'{"SliceThickness": 3.5, "Manufacturer": "%s"}'
WRITTEN = {
    "rordenlab/dcm2niix#472, a text over several lines": (SAYS % b"a\nb\tc", {"Manufacturer": "a\nb\tc"}),
    "rordenlab/dcm2niix#476, bytes that are no UTF-8": (SAYS % b"\xff\xff\xfc", {"Manufacturer": "ÿÿü"}),
    "rordenlab/dcm2niix#512, inf": (
        b'{"TotalReadoutTime": -inf, "SliceThickness": 3.5}',
        {"TotalReadoutTime": -np.inf},
    ),
    "rordenlab/dcm2niix#616, a comma too many in a list": (b'{"A": [1200,\n], "SliceThickness": 3.5}', {"A": [1200]}),
    "pauldmccarthy/fsleyes#46, a comma before the end": (b'{"A": "x, ]", "SliceThickness": 3.5,\n}', {"A": "x, ]"}),
    "nothing of the sort within a text": (
        b'{"A": "nan, inf ,} \\"inf", "SliceThickness": 3.5}',
        {"A": 'nan, inf ,} "inf'},
    ),
}


class TestSidecars:
    @pytest.mark.parametrize("report", WRITTEN)
    def test_slips_of_converters_take_nothing_from_what_stands_beside_them(self, scan, report):
        content, says = WRITTEN[report]
        assert parse_metadata(content) == {"SliceThickness": 3.5, **says}
        path = scan()
        path.with_name("sub-01_T1w.json").write_bytes(content)
        assert read_given(path, Slices()).thickness == 3.5

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[1]", b"\x1f\x8b\x08", b'{"a": nano}', b'{"a": 1%d}' % 10**400, b'{"a": "' + b'\\"' * 100_000],
        ids=["nothing", "cut", "list", "packed", "word", "digits", "quotes"],
    )
    def test_what_is_no_sidecar_matters_only_where_nobody_says_it(self, scan, content):
        """pauldmccarthy/fsleyes#46: an image was not opened for its sidecar."""
        path = scan()
        path.with_name("sub-01_T1w.json").write_bytes(content)
        with pytest.raises(VolumeError, match=r"sub-01_T1w\.json: is not valid JSON.*--thickness MM"):
            read_given(path, Slices())
        assert read_given(path, Slices(thickness_mm=4)).thickness == 4

    def test_a_sidecar_further_up_speaks_for_the_scans_below(self, scan, tmp_path):
        """bids-standard/pybids#339: one in the folder of the session was not found."""
        path = scan("bids/sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz")
        bids = tmp_path / "bids"

        def says(name, thickness):
            (bids / name).write_text(json.dumps({"SliceThickness": thickness}))
            return read_given(path, Slices()).thickness

        assert says("T1w.json", 3.1) == 3.1
        assert says("T2w.json", 5) == says("acq-x_T1w.json", 5) == says("inplaneT1w.json", 5) == 3.1
        assert says("sub-01/sub-01_T1w.json", 3.2) == 3.2
        assert says("sub-01/ses-a/sub-01_T1w.json", 3.3) == says("sub-01/sub-01_T1w.json", 3.25) == 3.3
        assert (
            says("sub-01/ses-a/anat/sub-01_T1w.json", 3.4) == says("sub-01/ses-a/anat/sub-01_run-1_T1w.json", 5) == 3.4
        )
        assert says("sub-01/ses-a/anat/sub-01_run-2_T1w.json", 3.5) == 3.5
        assert says("sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.json", 3.6) == 3.6
        (bids / "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.json").write_text('{"SliceThickness": "?"}')
        with pytest.raises(VolumeError, match=r"run-2_T1w\.json: SliceThickness '\?'"):
            read_given(path, Slices())

    def test_a_sidecar_beside_a_scan_that_lies_elsewhere_is_its_own_alone(self, scan, tmp_path):
        path = scan("scans/sub-01_T1w.nii.gz", metadata={"SliceThickness": 3.5})
        (tmp_path / "T1w.json").write_text('{"SliceThickness": 3.1}')
        assert read_given(path, Slices()).thickness == 3.5

    def test_one_that_was_not_fetched_is_named(self, scan):
        path = scan()
        path.with_name("sub-01_T1w.json").symlink_to("away")
        with pytest.raises(VolumeError, match=r"sub-01_T1w\.json: its content is not here.*datalad get.*--thickness"):
            read_given(path, Slices())

    @pytest.mark.parametrize("gap", [-2.5, 0.5])
    def test_slices_that_overlap_and_slices_with_gaps_are_as_thick_as_they_are(self, scan, gap):
        """rordenlab/dcm2niix#273: a negative gap; moloney/dcmstack#29: thickness taken for the distance."""
        one = read_given(scan(metadata={"SliceThickness": 4 - gap, "SpacingBetweenSlices": 4}), Slices())
        assert (one.spacing, one.thickness) == (4, 4 - gap)


class TestStudies:
    def test_one_measurement_counts_once(self, scan, tmp_path):
        """nipreps/fmriprep#2227: one acquisition, given twice, was averaged as if it were two."""
        first = scan("one.nii.gz", metadata={"SliceThickness": 4})
        same = [scan(name, metadata={"SliceThickness": 4}) for name in ("two.nii", "three.nii.gz")]
        for path in same:
            with pytest.raises(ValueError, match=rf"{path.name}: holds the same measurement as .*one\.nii\.gz"):
                refuse_twins([read_given(one, Slices()) for one in (first, path)])
        other = scan("other.nii.gz", data=load_volume(first).data + 1, metadata={"SliceThickness": 4})
        refuse_twins([read_given(one, Slices()) for one in (first, other)])

    def test_small_numbers_are_not_rounded_away(self, scan, tmp_path):
        """rpomponio/neuroHarmonize#51: results were rounded to whole numbers."""
        made = {}
        for name, factor in (("one", 1), ("tiny", 2.0**-60)):
            path = scan(f"{name}.nii.gz", data=load_volume(scan()).data * np.float32(factor))
            words = [path, tmp_path / f"{name}_sr.nii.gz", "--gap", "0", "--method", "spline", "--mem-gb", "3"]
            assert cli.main(["sr", *map(str, words)]) == 0
            made[name] = load_volume(words[1]).data / np.float32(factor)
        assert np.abs(made["one"] - made["tiny"]).max() < 1e-4 * made["one"].max()


@pytest.fixture
def bids(tmp_path):
    """A BIDS folder of empty files: what they hold is not looked at here."""

    def make(*names):
        for name in names:
            path = tmp_path / "bids" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "bids"

    return make


class TestFolders:
    def test_a_folder_without_scans_is_an_error(self, bids, tmp_path, capsys):
        """nipreps/niworkflows#393: what was missing was said in a traceback; here nothing was, and the code was 0."""
        source = bids("sub-01/anat/sub-01_T2star.nii.gz", "sub-02/func/sub-02_bold.nii.gz")
        assert cli.main(["sr", str(source), str(tmp_path / "out")]) == 2
        assert "has no sub-*" in (said := capsys.readouterr().err) and "sub-01_T2star.nii.gz" in said
        assert not (tmp_path / "out").exists()
        bids("sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz")
        with pytest.raises(ValueError, match="has no ses-b; it has a"):
            dataset.scans_in(source, sessions=["b"])

    def test_two_files_of_one_name_are_not_written_over_one_another(self, bids):
        """nipreps/niworkflows#627: a scan and its compressed copy."""
        found = dataset.scans_in(bids("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz", *OTHERS))
        assert [path.name for path in found.scans] == ["sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"]
        assert [path.name for path in found.others] == ["sub-01_T1w.nii"], "named as left out, as headsr pin names it"

    def test_a_scan_in_the_folder_of_another_person_is_not_written_over_that_one_s(self, bids):
        """bids-standard/legacy-validator#264: another subject in the name than in the path."""
        found = dataset.scans_in(bids("sub-01/anat/sub-02_T1w.nii.gz", "sub-01/ses-a/anat/sub-01_T1w.nii", *OTHERS))
        assert [path.parts[-3:] for path in found.scans] == [("sub-02", "anat", "sub-02_T1w.nii.gz")]
        first, second = found.unclear
        assert "belongs into" in first.words and f"sub-02{os.sep}anat" in first.words
        assert f"sub-01{os.sep}anat. Move" in second.words

    @pytest.mark.parametrize("name", ["sub-02_T1w.NII.GZ", "sub-02_T1w.Nii", "._sub-02_T1w.nii.gz"])
    def test_what_is_left_out_is_named(self, bids, name):
        """MRtrix3/mrtrix3#2307: endings in capitals; OpenNeuroOrg/openneuro#2520: what a Mac leaves beside files."""
        found = dataset.scans_in(bids("sub-01/anat/sub-01_T1w.nii.gz", f"sub-02/anat/{name}"))
        assert [path.name for path in found.scans] == ["sub-01_T1w.nii.gz"]
        assert [path.name for path in found.others] == [name] and not found.unclear

    def test_a_process_that_is_killed_takes_no_other_scan_with_it(self, bids, tmp_path, monkeypatch, capsys):
        """HALFpipe/HALFpipe#134: one was killed, and a week of work ended with all that had not been done."""
        source = bids(*(f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in range(1, 6)))
        monkeypatch.setattr(dataset, "ProcessPoolExecutor", PoolThatThirdKills)
        monkeypatch.setattr(dataset, "_outcome_of", lambda request: dataset.Outcome(request.scans[0], "done"))
        assert cli.main(["sr", str(source), str(tmp_path / "out"), "--workers", "2", "--method", "spline"]) == 1
        said = capsys.readouterr()
        assert "4 of 5 scans are done" in said.out
        assert said.err.count("FAILED") == 1 and "sub-3_T1w.nii.gz: its process was killed" in said.err

    @pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_who_ends_the_command_ends_what_it_has_started(self, bids, tmp_path, monkeypatch, told):
        """python/cpython#80180: the processes of a pool lived on after SIGTERM."""

        def told_while_it_waits(running):
            os.kill(os.getpid(), told)
            yield from ()

        ended = []
        process = SimpleNamespace(terminate=lambda: ended.append(told))
        source = bids("sub-1/anat/sub-1_T1w.nii.gz")
        monkeypatch.setattr(dataset, "ProcessPoolExecutor", PoolThatThirdKills)
        monkeypatch.setattr(dataset, "_outcome_of", lambda request: dataset.Outcome(request.scans[0], "done"))
        monkeypatch.setattr(dataset, "as_completed", told_while_it_waits)
        monkeypatch.setattr(dataset, "active_children", lambda: [process])
        command = ["sr", str(source), str(tmp_path / "out"), "--method", "spline"]
        before = signal.signal(told, signal.default_int_handler if told == signal.SIGINT else signal.SIG_DFL)
        try:
            assert cli.main(command) == cli.INTERRUPTED
        finally:
            signal.signal(told, before)
        assert ended == [told]


OTHERS = ("sub-02/anat/sub-02_T1w.nii.gz",)


class PoolThatThirdKills:
    """A pool of processes of which the one that is given sub-3 is killed: nothing in it ends after that."""

    def __init__(self, workers, **how):
        self.broken = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def shutdown(self, **how):
        pass

    def submit(self, run, request):
        if self.broken:
            raise BrokenProcessPool
        self.broken = "sub-3" in str(request.scans[0])
        future = Future()
        if self.broken:
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(run(request))
        return future
