"""A table that compares sets of slices brings its encoder into the workflow, and says how many slices it compared."""

import csv
import json

import pytest
from project import delta, snakemake
from smoke import LOCAL

ENCODER = {
    "kind": "slice_encoder",
    "network": {"architecture": "slice_encoder", "channels": [4, 8], "blocks": 1, "unshuffle": 1},
    "data": {"kind": "marked_slices", "suffixes": ["T1w"], "crop": 16, "degradation": "thick_slices"},
    "budget": {"steps": 4, "batch": 2},
    "optimizer": {"learning_rate": 1.0e-3},
    "schedule": {"shape": "constant"},
    "seed": 1,
    "losses": {"plane": 1.0, "position": 1.0, "degradation": 1.0},
}
TABLE = {
    "columns": ["psnr", *({"metric": metric, "mask": "axial"} for metric in ("kid", "slice_fid"))],
    "encoder": "small",
}


@pytest.fixture
def project(smoke):
    """The finished smoke run, with a table that asks for KID and SliceFID of axial slices."""
    overrides = {"tables": {"one_thick": TABLE}, "models": {"small": ENCODER}}
    config = delta(smoke, "sets", {"tables": ["one_thick"], "overrides": overrides})
    run = snakemake(smoke, *LOCAL, config, "--", "results/tables/one_thick.md", "results/models/small/history.jsonl")
    assert run.returncode == 0, run.stdout[-6000:]
    return smoke


def test_sets_of_slices_are_compared_and_counted(project):
    scores = json.loads((project / "results/scores/set/one_thick/spline/axial_x4/all.json").read_text())
    assert scores["unit"]["scan"] == "one_thick"
    assert [model["model"] for model in scores["trained_on"]] == ["small"]
    assert {(row["metric"], row["mask"]) for row in scores["rows"]} == {("kid", "axial"), ("slice_fid", "axial")}
    (n,) = {row["n"] for row in scores["rows"]}
    with open(project / "results/tables/one_thick.tsv", newline="") as stream:
        spline = next(row for row in csv.DictReader(stream, delimiter="\t") if row["method"] == "spline")
    assert spline["axial_x4.axial.kid.unprojected.n"] == str(n) and n >= 10
    assert f"(N {n})" in (project / "results/tables/one_thick.md").read_text()
