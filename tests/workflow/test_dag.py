"""The plan without running it: which jobs, what each asks for, and slips in the configuration that are errors."""

import ast
import contextlib
import re
import runpy
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from project import ROOT, copy_project, delta, made_up_scans, plan, planned, snakemake

PEOPLE = {"sub-01": "train", "sub-02": "train", "sub-03": "val", "sub-04": "test", "sub-05": "test", "sub-06": "unused"}
DATASETS = {"demo": {"url": "none", "version": "v1", "license": "none", "citation": "none"}}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = copy_project(tmp_path_factory.mktemp("dag"))
    (project / "src").symlink_to(ROOT / "src")
    made_up_scans(project, PEOPLE)
    delta(project, "made_up", {"scans": "scans.tsv", "overrides": {"datasets": DATASETS}})
    return project


SMOKE = ("--configfile", "tests/config/smoke/config.yaml", "made_up.yaml")


def test_jobs_of_the_whole_plan(project):
    jobs = planned(project, *SMOKE)
    used, test, methods = 5, 2, 6
    for rule in ("fetch_scan", "correct_bias", "register_to_template", "mask_head", "normalize_intensity"):
        assert jobs[rule] == used, rule
    assert jobs["extract_slices"] == 3
    assert jobs["simulate_lowres"] == test * 4
    assert jobs["list_training_data"] == jobs["check_model"] == jobs["export_model"] == 3
    assert jobs["train_segment"] == 4
    assert (jobs["reconstruct_volume"], jobs["reconstruct_volume_gpu"]) == (3 * test, test)
    assert jobs["fit_field"] == jobs["render_volume"] == 2 * test
    assert jobs["check_volume"] == jobs["score_volume"] == methods * test
    assert jobs["make_table"] == 2
    assert jobs["draw_figure"] == 2 * test
    assert jobs["draw_masks"] == test  # a scan's masks are the same whatever becomes of it
    assert jobs["write_report"] == jobs["collect_scores"] == jobs["sync_mlflow"] == 1


def test_a_slice_encoder_joins_where_a_table_compares_sets_of_slices(project):
    """For one table, and nothing else about the plan changes."""
    columns = ["psnr", *({"metric": "kid", "mask": plane} for plane in ("axial", "coronal", "sagittal"))]
    small = {"network": {"channels": [4, 8]}, "data": {"crop": 16}, "budget": {"steps": 4, "batch": 2}}
    table = {"one_thick": {"columns": columns, "encoder": "slice_encoder"}}
    delta(project, "sets", {"overrides": {"tables": table, "models": {"slice_encoder": small}}})
    before, jobs = planned(project, *SMOKE), planned(project, *SMOKE, "sets.yaml")
    assert jobs - before == Counter(
        {
            "list_training_data": 1,
            "check_model": 1,
            "train_segment": 1,
            "export_model": 1,
            "score_features": 2 * 2,  # volumes of two methods for two heads
            "score_set": 2,
        }
    )


def test_a_model_that_no_table_uses_can_be_trained(project):
    jobs = planned(project, "results/models/slice_encoder/weights.safetensors", *SMOKE)
    assert jobs["extract_slices"] == 3
    assert jobs["list_training_data"] == jobs["train_segment"] == jobs["export_model"] == 1


def test_a_wrong_setting_of_a_network_leaves_the_plan_to_its_check(project):
    wrong = {"network": {"channels": 8, "blocks": 1, "unshuffle": "2"}}
    delta(project, "wrong", {"overrides": {"models": {"edsr": wrong}}})
    assert planned(project, *SMOKE, "wrong.yaml")["check_model"] == 3


def test_larger_volumes_are_rendered_from_the_same_fields(project):
    delta(
        project,
        "larger",
        {"render": {"larger": {"fine": {"scale": [2], "dtype": "uint16"}, "huge": {"shape": [4096]}}}},
    )
    jobs, test = planned(project, *SMOKE, "larger.yaml"), 2
    assert (jobs["fit_field"], jobs["render_volume"]) == (2 * test, 3 * 2 * test)
    assert jobs["check_volume"] == jobs["score_volume"] == 6 * test  # on the head's own grid alone


def test_a_larger_volume_may_take_as_long_as_the_configuration_says(project, tmp_path):
    patient = shutil.copytree(project, tmp_path / "project")
    larger = {"fine": {"scale": [2]}, "huge": {"shape": [4096], "runtime_min": 1440}}
    delta(patient, "patient", {"render": {"larger": larger}})
    rules = patient / "workflow/rules/reconstruct.smk"
    rules.write_text(re.sub(r"    message:\n.*\n", "", rules.read_text()))  # it stands for what a rule asks for
    said = snakemake(patient, "--dry-run", "--cores", "2", *SMOKE, "patient.yaml").stdout
    asked = re.findall(r"^rule render_volume:$.*?\bgrid=(\w+).*?\bruntime=(\d+)", said, flags=re.M | re.S)
    assert set(asked) == {("hi", "120"), ("fine", "120"), ("huge", "1440")}


def test_a_render_is_given_what_snakemake_leaves_of_the_job_s_memory(monkeypatch):
    given = {}
    monkeypatch.setattr("headsr.jobs.job", lambda _: contextlib.nullcontext())
    monkeypatch.setattr("headsr.render.field.render_unit", lambda *_, **how: given.update(how))
    resources = {"scheduler": "slurm", "workers": 2, "mem_mb": 1500}
    parts = {
        "input": {"field": "a", "lowres": []},
        "params": {"larger": {}, "chunk": 128, "shard": 512},
        "resources": resources,
    }
    output = {name: name for name in ("store", "preview", "sidecar")}
    asked = SimpleNamespace(output=output, **{name: SimpleNamespace(**part) for name, part in parts.items()})
    runpy.run_path(str(ROOT / "workflow/scripts/render_volume.py"), {"snakemake": asked})
    assert given["memory_mb"] > 0.6 * 1500 and 1.1 * given["memory_mb"] + 2 * 190 < 1500


@pytest.mark.parametrize(
    "larger",
    [
        {"hi": {"scale": [2]}},
        {"fine": {}},
        {"fine": {"scale": [2], "shape": [9]}},
        {"fine": {"scale": [2], "runtime_min": 0}},
    ],
)
def test_a_larger_volume_needs_a_label_of_its_own_and_one_size(project, larger):
    delta(project, "wrong", {"render": {"larger": larger}})
    assert snakemake(project, "-n", *SMOKE, "wrong.yaml").returncode != 0


@pytest.mark.parametrize(
    ("unit", "jobs"),
    [
        ("inr_prior/orthogonal_x4", 12),
        ("slice_network/orthogonal_x4", 11),
        ("tikhonov/orthogonal_x4", 11),
        ("spline/axial_x4", 9),
    ],
)
def test_jobs_from_a_head_s_scan_to_its_score_are_at_most_twelve(project, unit, jobs):
    score = f"results/scores/voxels/{unit}/demo/sub-04/sub-04_T1w.json"
    assert len([job for job in plan(project, *SMOKE, "--", score) if "sub-04" in job]) == jobs <= 12


@pytest.mark.parametrize("target", ["models", "reconstructions", "tables"])
def test_targets_read_like_nouns(project, target):
    assert planned(project, *SMOKE, "--", target)


def test_a_scan_that_is_itself_thick_needs_no_truth(project):
    table = {
        "clinical": {"title": "x", "methods": ["spline", "inr"], "degradations": ["acquired"], "suffixes": ["T1w"]}
    }
    acquired = delta(project, "acquired", {"tables": ["clinical"], "overrides": {"tables": table}})
    jobs = planned(project, *SMOKE, acquired)
    assert jobs["check_volume"] == 4 and jobs["draw_figure"] == 2
    assert jobs["score_volume"] == jobs["make_table"] == jobs["train_segment"] == 0


def rules_of(path: Path) -> dict[str, str]:
    """Every rule of a file by its name; one that uses another rule after that rule's own words."""
    parts = re.split(r"^(?:rule (\w+)|use rule (\w+) as (\w+) with):\n", path.read_text(), flags=re.M)[1:]
    rules: dict[str, str] = {}
    for name, used, new, body in zip(*(parts[i::4] for i in range(4)), strict=True):
        rules[name or new] = rules.get(used, "") + re.split(r"^\S", body, flags=re.M)[0]
    return rules


RULES = {name: body for path in (ROOT / "workflow/rules").glob("*.smk") for name, body in rules_of(path).items()}
WORKING = {name: body for name, body in RULES.items() if "script:" in body}


@pytest.mark.parametrize("name", sorted(WORKING))
def test_every_rule_says_what_it_needs(name):
    for directive in ("log:", "threads:", "mem_mb=", "runtime=", "conda:", "message:", "stage="):
        assert directive in WORKING[name], f"{name} has no {directive}"
    assert f"../scripts/{name.removesuffix('_gpu').removesuffix('_and_uncertainty')}.py" in WORKING[name]


def test_the_gpu_is_asked_for_by_the_rules_that_use_it():
    asking = {name for name, body in WORKING.items() if "gpu=1" in body}
    assert asking == {
        "train_segment",
        "reconstruct_volume_gpu",
        "reconstruct_volume_and_uncertainty_gpu",
        "fit_field",
    }


@pytest.mark.parametrize("script", sorted((ROOT / "workflow/scripts").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_are_one_import_and_one_call(script):
    first, block = [node for node in ast.parse(script.read_text()).body if not isinstance(node, ast.Expr)]
    assert ast.unparse(first) == "from headsr.jobs import job"
    assert isinstance(block, ast.With) and ast.unparse(block.items[0]) == "job(snakemake)"
    *imports, call = block.body
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    assert script.stem in RULES
    assert "snakemake.config" not in script.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resultz": "x"}, "resultz"),
        ({"tables": ["one_thik"]}, "did you mean 'one_thick'"),
        ({"overrides": {"methods": {"inr": {"fitt": 1}}}}, "unknown key 'fitt'; did you mean 'fit'"),
        ({"overrides": {"models": {"ldm": {"budget": {"stepz": 1}}}}}, "unknown key 'stepz'; did you mean 'steps'"),
        ({"overrides": {"tables": {"one_thick": {"methods": ["inrr"]}}}}, "unknown method 'inrr'; did you mean 'inr'"),
        ({"overrides": {"degradations": {"axial_x4": {"stacks": [{"view": "axial"}]}}}}, "'factor' is missing"),
        ({"scans": "absent.tsv"}, "headsr pin"),
    ],
)
def test_slips_are_errors_that_name_the_way_out(project, change, message):
    slip = delta(project, "slip", change)
    run = snakemake(project, "--dry-run", "--cores", "1", *SMOKE, slip)
    assert run.returncode != 0
    assert message in run.stdout


def test_a_split_that_is_another_than_the_recipe_says_is_said_and_own_datasets_are_planned(project):
    """A file of datasets of one's own, beside the shipped tables, which are about none of them."""
    demo = DATASETS["demo"] | {"splits": {"val": ["sub-01"], "test": ["sub-04"]}}
    recipes = {"datasets": delta(project, "own", {"demo": demo})}
    table = {"title": "x", "methods": ["spline"], "degradations": ["acquired"], "suffixes": ["T1w"]}
    alone = {"scans": "scans.tsv", "recipes": recipes, "tables": ["mine"], "overrides": {"tables": {"mine": table}}}
    run = snakemake(project, "-n", "--cores", "1", "--configfile", delta(project, "alone", alone))
    assert run.returncode == 0, run.stdout
    said = (
        "demo: its recipe says val of sub-01, and the table of pins, which decides, says train. Write the same in both"
    )
    assert said in run.stdout and "sub-04, and" not in run.stdout


def test_two_rules_never_share_an_output(project):
    # Snakemake itself refuses an ambiguous plan; every method of every kind is in this one.
    assert planned(project, *SMOKE)["check_volume"] == 12


def test_parsing_imports_nothing_heavy():
    import subprocess
    import sys

    code = "import headsr.targets, headsr.scans, headsr.stages, headsr.recipes, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "nibabel", "scipy", "ants", "zarr"} & set(modules)


def test_lint_is_clean():
    assert shutil.which("snakemake", path=f"{Path(__import__('sys').executable).parent}")
    run = snakemake(ROOT, "--lint", "--configfile", "config/config.yaml")
    assert run.returncode == 0, run.stdout
