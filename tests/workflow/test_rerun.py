"""What a change makes the plan redo: exactly what depends on it, by the same words on this machine and through SLURM.

Everything is real: a git-annex dataset that is corrected, published and pinned again, and a project that was run.
`smoke` has trainings and six methods; `study` has many scans of three people, and one method.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
import smoke as smoke_run
import study as study_run
import yaml
from project import ROOT, delta, headsr, plan, snakemake
from study import PEOPLE, SCANS, configure, path_of, publish, save

from headsr.annex import run_tool
from headsr.scans import Scan, read_pins, read_scans, write_scans
from headsr.volumes import Volume, load_volume

SMOKE, STUDY = smoke_run.CONFIG, study_run.CONFIG
METHODS = {
    "orthogonal_x4": ("average", "tikhonov", "slice_network", "inr_prior"),
    "axial_x4": ("spline", "inr"),
}
MAKE = {
    "average": ("Reconstruct {scan} under {degradation}: average",),
    "spline": ("Reconstruct {scan} under {degradation}: spline",),
    "tikhonov": ("Reconstruct {scan} under {degradation}: tikhonov",),
    "slice_network": ("Reconstruct {scan} under {degradation}: slice_network",),
    "inr": ("Fit the field of {scan} under {degradation}: inr", "Render {scan} under {degradation}: inr, hi"),
    "inr_prior": (
        "Fit the field of {scan} under {degradation}: inr_prior",
        "Render {scan} under {degradation}: inr_prior, hi",
    ),
}
SUMMARY = ["Collect all scores", "Mirror histories, scores and checks to MLflow", "Write the report"]
TABLES = [*SUMMARY, "Make the table one_thick", "Make the table three_orthogonal"]
CURVES = ["Draw the loss curves of every training and fit"]
LISTS = [f"List the scans that {model} is trained on" for model in ("edsr", "kl_f4", "ldm")]
TRAINING = [
    "Train edsr, segment 0",
    "Train kl_f4, segment 0",
    "Train ldm, segment 0",
    "Train ldm, segment 1",
    *(f"Export the averaged weights of {model}" for model in ("edsr", "kl_f4", "ldm")),
]


def preprocess(scan: str) -> list[str]:
    """The jobs that make a preprocessed scan."""
    return [
        f"Fetch {scan} of demo by its content key",
        f"Correct the bias field of {scan}",
        f"Register {scan} to the MNI152 head",
        f"Mask the head and the brain of {scan}",
        f"Normalise the intensities of {scan}",
    ]


def volume(scan: str, degradation: str, method: str) -> list[str]:
    """The jobs that make a volume from the thick scans, and measure it."""
    made = [step.format(scan=scan, degradation=degradation) for step in MAKE[method]]
    return [*made, f"Check {scan} under {degradation}: {method}", f"Score {scan} under {degradation}: {method}"]


def smoke_chain(scan: str) -> list[str]:
    """Every job of a test scan of the smoke run."""
    views = {"orthogonal_x4": ("axial", "coronal", "sagittal"), "axial_x4": ("axial",)}
    return [
        *preprocess(scan),
        *(f"Simulate the {view} scan of {scan} under {d}" for d in METHODS for view in views[d]),
        *(job for d, methods in METHODS.items() for method in methods for job in volume(scan, d, method)),
        *(f"Draw {scan} under {d}" for d in METHODS),
        f"Draw the masks of {scan}",
    ]


def study_chain(scan: str) -> list[str]:
    """Every job of a scan of the study."""
    thick = f"Simulate the axial scan of {scan} under axial_x2"
    draw = [f"Draw {scan} under axial_x2", f"Draw the masks of {scan}"]
    return [*preprocess(scan), thick, *volume(scan, "axial_x2", "spline"), *draw]


STUDY_TABLES = [*SUMMARY, "Make the table study"]
LARGE = """
rule read:
    input: "large"
    output: "small"
    message: "Read it"
    shell: "wc -c < {input} > {output}"
rule write:
    output: "large"
    shell: "head -c 1200000 /dev/zero > {output}"
"""


def touch_links(project: Path) -> None:
    for folder, _, names in os.walk(project / "origin"):
        for name in names:
            os.utime(os.path.join(folder, name), follow_symlinks=False)


def clone_afresh(project: Path) -> None:
    remove(project / "results/clones")
    pin(project, "study.yaml")


def drop_content(project: Path) -> None:
    run_tool(["git", "-C", project / "origin", "annex", "drop", "--quiet", "--force", "--all"])


def remove(folder: Path) -> None:
    """Remove a clone, whose annexed folders are write-protected."""
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o755)
    shutil.rmtree(folder)


def pin(project: Path, *configuration: str) -> str:
    run = headsr(project, "pin", "demo", "--configfile", *configuration)
    assert run.returncode == 0, run.stdout
    return run.stdout


def results_of(project: Path) -> list[Path]:
    return sorted(path for path in (project / "results").rglob("*") if path.is_file() and "clones" not in path.parts)


def touch_preprocessed(project: Path) -> None:
    for path in results_of(project):
        if "preprocessed" in path.parts:
            path.touch()


def two_hours_ahead(project: Path) -> None:
    """As a node with a wrong clock leaves them."""
    for path in results_of(project):
        if "preprocessed" in path.parts:
            os.utime(path, (path.stat().st_mtime + 7200,) * 2)


def at_one_time(project: Path) -> None:
    for path in results_of(project):
        os.utime(path, (1.7e9, 1.7e9))


def in_reverse(project: Path) -> None:
    """What was made first is the newest: every input is newer than all that was made from it."""
    for path in results_of(project):
        os.utime(path, (3.6e9 - path.stat().st_mtime,) * 2)


def copied_without_times(project: Path) -> None:
    """As ``cp -r`` and many a backup leave them."""
    results = project / "results"
    copy = shutil.copytree(results, project / "copy", symlinks=True, copy_function=shutil.copyfile)
    remove(results)
    copy.rename(results)


def correct(project: Path, name: str, tag: str) -> None:
    """The dataset's makers publish a scan anew, a little brighter, as a new version."""
    origin = project / "origin"
    old = load_volume(origin / path_of(name))
    save(origin, name, Volume(old.data * 1.01, old.grid))
    publish(origin, tag)


@pytest.mark.parametrize(
    "changes",
    [(), (touch_links,), (clone_afresh,), (drop_content,), (touch_links, clone_afresh, drop_content)],
    ids=["steady", "links touched", "cloned afresh", "content dropped", "all of it"],
)
def test_nothing_as_long_as_the_content_is_the_same(study, changes):
    for change in changes:
        change(study)
    assert plan(study, *STUDY) == []


@pytest.mark.parametrize("change", [touch_preprocessed, two_hours_ahead, at_one_time, in_reverse, copied_without_times])
def test_nothing_whatever_the_times_of_the_results(smoke, change):
    change(smoke)
    assert plan(smoke, *SMOKE) == []


def test_nothing_for_a_touched_file_of_more_than_a_megabyte(tmp_path):
    """Which no file of these runs has, and above which Snakemake by itself goes by times."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text(LARGE)
    assert snakemake(tmp_path, "--profile", "profiles/local").returncode == 0
    (tmp_path / "large").touch()
    assert plan(tmp_path) == []
    assert plan(tmp_path, "--max-checksum-file-size", "1MB") == ["Read it"]


def test_a_corrected_scan_of_a_test_person_redoes_its_own_chain_and_the_tables(study):
    name = "sub-02_ses-a_run-2_T1w"
    correct(study, name, "v2")
    change = configure(study, "release", version="v2")
    assert f"demo/{name}" in pin(study, change)
    release = ["Describe the derivatives of demo by spline on axial_x2"]  # says which version of the dataset it was
    assert plan(study, "--configfile", change) == sorted([*study_chain(name), *STUDY_TABLES, *release])


def test_a_corrected_scan_of_a_training_person_redoes_its_own_chain_and_the_training(smoke):
    name = "sub-01_T1w"
    correct(smoke, name, "v2")
    release = {"demo": {**smoke_run.DATASETS["demo"], "version": "v2"}}
    change = delta(smoke, "release", {"overrides": {"datasets": release}})
    pin(smoke, *SMOKE[1:], change)
    follow = [
        *volume("sub-03_T1w", "orthogonal_x4", "slice_network"),
        *volume("sub-03_T1w", "orthogonal_x4", "inr_prior"),
        "Draw sub-03_T1w under orthogonal_x4",
    ]
    describe = [
        f"Describe the derivatives of demo by {method} on {degradation}"
        for degradation, methods in METHODS.items()
        for method in methods
    ]
    slices = ["Extract axial, coronal and sagittal slices of sub-01_T1w"]
    expected = [*preprocess(name), *slices, *LISTS, *TRAINING, *follow, *TABLES, *CURVES, *describe]
    assert plan(smoke, *SMOKE, change) == sorted(expected)


def test_a_corrected_scan_of_a_test_person_trains_nothing(smoke):
    name = "sub-03_T1w"
    correct(smoke, name, "v2")
    release = {"demo": {**smoke_run.DATASETS["demo"], "version": "v2"}}
    change = delta(smoke, "release", {"overrides": {"datasets": release}})
    pin(smoke, *SMOKE[1:], change)
    jobs = [job for job in plan(smoke, *SMOKE, change) if not job.startswith("Describe")]
    assert jobs == sorted([*smoke_chain(name), *TABLES, *CURVES])


def test_a_new_person_is_nothing_until_someone_gives_a_split(study):
    name = "sub-04_ses-a_run-1_T1w"
    old = load_volume(study / "origin" / path_of(SCANS[0]))
    save(study / "origin", name, Volume(old.data * 0.9, old.grid))
    publish(study / "origin", "v2")
    change = configure(study, "release", version="v2")
    pin(study, change)
    described = plan(study, "--configfile", change)
    assert described == ["Describe the derivatives of demo by spline on axial_x2", "Write the report"]

    rows = (study / "scans.tsv").read_text()
    (study / "scans.tsv").write_text(re.sub(r"^(demo\tsub-04\t.*)unused$", r"\1test", rows, flags=re.M))
    assert plan(study, "--configfile", change) == sorted([*study_chain(name), *STUDY_TABLES, *described[:1]])


def test_a_person_who_was_taken_out_leaves_the_tables_and_nothing_else(study):
    run_tool(["git", "-C", study / "origin", "rm", "-r", "--quiet", "sub-03"])
    publish(study / "origin", "v2")
    change = configure(study, "release", version="v2")
    said = pin(study, change)
    assert all(f"demo/{name}" in said for name in SCANS if name.startswith("sub-03"))
    left = {scan.subject: scan.split for scan in read_scans(study / "scans.tsv")}
    assert left == {**dict.fromkeys(PEOPLE, "test"), "sub-03": "unused"}
    release = ["Describe the derivatives of demo by spline on axial_x2"]
    assert plan(study, "--configfile", change) == sorted([*STUDY_TABLES, *release])


def test_a_new_key_alone_redoes_the_chain_though_the_content_cannot_be_had(study):
    """Somebody pinned, and the network is gone: the plan must not say that all is done."""

    def with_new_key(scan: Scan) -> str:
        return re.sub("--.", "--0", scan.key) if scan.key[scan.key.index("--") + 2] != "0" else scan.key[::-1]

    pins = read_pins(study / "scans.tsv")
    first = next(pin for pin in pins if not pin.of)
    others = [pin for pin in pins if pin != first]
    changed = Scan(**{**vars(first), "key": with_new_key(first)})
    write_scans(study / "scans.tsv", [changed, *others])
    assert plan(study, *STUDY) == sorted([*study_chain(f"{first.scan}_{first.suffix}"), *STUDY_TABLES])


def test_nothing_when_the_keys_of_a_file_change_places(smoke):
    methods = yaml.safe_load((smoke / "config/methods.yaml").read_text())
    turned = {name: dict(reversed(block.items())) for name, block in reversed(methods.items())}
    (smoke / "config/methods.yaml").write_text(yaml.safe_dump(turned, sort_keys=False))
    assert plan(smoke, *SMOKE) == []


def test_one_method_when_its_recipe_changes(smoke):
    change = delta(smoke, "change", {"overrides": {"methods": {"inr": {"fit": {"smoothness": 0.01}}}}})
    expected = [*volume("sub-03_T1w", "axial_x4", "inr"), "Draw sub-03_T1w under axial_x4", *TABLES, *CURVES]
    assert plan(smoke, *SMOKE, change) == sorted(expected)


def test_more_segments_reuse_those_that_are_done(smoke):
    change = delta(smoke, "change", {"overrides": {"models": {"ldm": {"budget": {"segments": 3}}}}})
    expected = [
        "Train ldm, segment 2",
        "Export the averaged weights of ldm",
        *volume("sub-03_T1w", "orthogonal_x4", "inr_prior"),
        "Draw sub-03_T1w under orthogonal_x4",
        *TABLES,
        *CURVES,
    ]
    assert plan(smoke, *SMOKE, change) == sorted(expected)


def test_a_model_that_joins_retrains_no_other(smoke):
    edsr = yaml.safe_load((smoke / "config/models/edsr.yaml").read_text())
    small = {"network": {"architecture": "residual2d", "channels": 4, "blocks": 1}, "budget": {"steps": 4, "batch": 2}}
    new = {"kind": "adversarial", "discriminator": {"architecture": "patch_discriminator", "channels": 4, "layers": 1}}
    model = {**edsr, **small, **new, "data": {**edsr["data"], "crop": 16}, "losses": {"l1": 1.0, "vanilla": 0.01}}
    methods = yaml.safe_load((smoke / "config/methods.yaml").read_text())
    joined = {
        "models": {"judged": model},
        "methods": {"judged": {**methods["slice_network"], "model": "judged"}},
        "tables": {"one_thick": {"methods": ["spline", "inr", "judged"], "expectations": []}},
    }
    jobs = plan(smoke, *SMOKE, delta(smoke, "joined", {"overrides": joined}))
    assert not set(jobs) & {*LISTS, *TRAINING}
    assert {"Check the recipe of judged", "Train judged, segment 0"} <= set(jobs)


def test_a_slip_that_was_refused_and_mended_trains_nothing(smoke):
    (smoke / "results/models/edsr/check.json").unlink()  # Snakemake deletes it when the check fails
    assert plan(smoke, *SMOKE) == ["Check the recipe of edsr"]


@pytest.mark.parametrize(
    "change", [*({key: "other words"} for key in ("title", "citation", "published")), {"checkpointing": True}], ids=str
)
def test_nothing_is_trained_anew_for_words_about_a_model_or_its_memory(smoke, change):
    change = delta(smoke, "words", {"overrides": {"models": {"edsr": change}}})
    assert not set(plan(smoke, *SMOKE, change)) - set(SUMMARY)


@pytest.fixture
def with_source(smoke):
    """The smoke run with the package's source in the project, to be changed."""
    shutil.copytree(ROOT / "src", smoke / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    return smoke


def test_nothing_for_a_comment_in_the_source_or_a_touched_script(with_source):
    for module in (with_source / "src/headsr").rglob("*.py"):
        module.write_text(module.read_text() + "\n# another thought\n")
    for script in (with_source / "workflow/scripts").glob("*.py"):
        os.utime(script)
    assert plan(with_source, *SMOKE) == []


@pytest.mark.parametrize(
    ("stage", "methods"),
    [
        ("simulate_lowres", METHODS),
        ("reconstruct_volume", {"orthogonal_x4": ["average", "tikhonov", "slice_network"], "axial_x4": ["spline"]}),
    ],
)
def test_a_bumped_stage_and_what_depends_on_it(with_source, stage, methods):
    stages = with_source / "src/headsr/stages.py"
    stages.write_text(re.sub(rf'"{stage}": \d+', f'"{stage}": 99', stages.read_text()))
    scan = "sub-03_T1w"
    if stage == "simulate_lowres":
        before = [*preprocess(scan), f"Draw the masks of {scan}"]
        expected = [job for job in smoke_chain(scan) if job not in before] + CURVES
    else:
        expected = [job for d, names in methods.items() for method in names for job in volume(scan, d, method)]
        expected += [f"Draw {scan} under {degradation}" for degradation in methods]
    assert plan(with_source, *SMOKE) == sorted([*expected, *TABLES])


def test_a_bumped_method_redoes_its_own_volumes(with_source):
    recipes = with_source / "src/headsr/recipes/methods.py"
    text, count = re.subn(r'(tikhonov\.least_squares", version=)\d+', r"\g<1>99", recipes.read_text())
    assert count == 1
    recipes.write_text(text)
    made = volume("sub-03_T1w", "orthogonal_x4", "tikhonov")
    assert plan(with_source, *SMOKE) == sorted([*made, "Draw sub-03_T1w under orthogonal_x4", *TABLES])


def test_new_slices_train_anew_even_after_a_kill_in_between(smoke):
    """Extraction is killed right before training: the list of slices is small, so Snakemake compares only its bytes."""
    for index in (smoke / "results/models").glob("*/training.json"):
        content = yaml.safe_load(index.read_text())
        assert all(len(store["content"]) == 64 for store in content["stores"])
        index.write_text(index.read_text().replace(content["stores"][0]["content"], "0" * 64))
    assert set(TRAINING) <= set(plan(smoke, *SMOKE))
