"""What a change makes the plan redo: what depends on it, and nothing else. Dry runs on a project that is up to date."""

import dataclasses
import os

import yaml
from project import delta, planned, snakemake
from smoke import CONFIG, LOCAL

from headsr.scans import read_scans, write_scans

TRAINING = {"train_baseline", "train_autoencoder", "train_ldm_segment", "export_ldm", "extract_slices"}


def test_nothing_when_every_link_is_new(finished_project):
    for folder, _, names in os.walk(finished_project / "origin"):
        for name in names:
            os.utime(os.path.join(folder, name), follow_symlinks=False)
    assert "Nothing to be done" in snakemake(finished_project, "--dry-run", *LOCAL).stdout


def test_nothing_when_the_keys_of_a_file_change_places(finished_project):
    methods = yaml.safe_load((finished_project / "config/methods.yaml").read_text())
    turned = {name: dict(reversed(block.items())) for name, block in reversed(methods.items())}
    (finished_project / "turned.yaml").write_text(yaml.safe_dump(turned, sort_keys=False))
    change = delta(finished_project, "change", {"recipes": {"methods": "turned.yaml"}})
    assert "Nothing to be done" in snakemake(finished_project, "--dry-run", "--cores", "2", *CONFIG, change).stdout


def test_one_method_when_its_recipe_changes(finished_project):
    change = delta(finished_project, "change", {"overrides": {"methods": {"inr": {"fit": {"smoothness": 0.01}}}}})
    jobs = planned(finished_project, *CONFIG, change)
    assert jobs["fit_inr"] == jobs["render_volume"] == jobs["check_volume"] == jobs["score_volume"] == 1
    assert not TRAINING & set(jobs)
    assert not {"fetch_scan", "correct_bias", "simulate_lowres", "interpolate_volume", "solve_volume"} & set(jobs)


def with_new_content(project, person):
    """A scan table in which one person's scan has another key, as after an upstream correction and a pin."""
    scans = [
        dataclasses.replace(scan, key=scan.key.replace("--", "--0")) if scan.subject == person else scan
        for scan in read_scans(project / "scans.tsv")
    ]
    write_scans(project / "corrected.tsv", scans)
    return delta(project, "change", {"scans": "corrected.tsv"})


def test_a_new_test_scan_redoes_its_own_chain_and_no_training(finished_project):
    jobs = planned(finished_project, *CONFIG, with_new_content(finished_project, "sub-03"))
    for rule in ("fetch_scan", "correct_bias", "register_to_template", "mask_head", "normalize_intensity"):
        assert jobs[rule] == 1, rule
    assert jobs["check_volume"] == jobs["score_volume"] == 6
    assert jobs["write_report"] == 1
    assert not TRAINING & set(jobs)


def test_a_new_training_scan_redoes_its_own_chain_and_the_training(finished_project):
    jobs = planned(finished_project, *CONFIG, with_new_content(finished_project, "sub-01"))
    assert jobs["fetch_scan"] == jobs["correct_bias"] == jobs["extract_slices"] == 1
    assert jobs["train_baseline"] == jobs["train_autoencoder"] == jobs["export_ldm"] == 1
    assert jobs["train_ldm_segment"] == 2
    assert jobs["simulate_lowres"] == jobs["interpolate_volume"] == jobs["solve_volume"] == 0


def test_more_segments_reuse_those_that_are_done(finished_project):
    change = delta(finished_project, "change", {"overrides": {"models": {"ldm": {"budget": {"segments": 3}}}}})
    jobs = planned(finished_project, *CONFIG, change)
    assert jobs["train_ldm_segment"] == jobs["export_ldm"] == 1
    assert not {"train_baseline", "train_autoencoder", "extract_slices"} & set(jobs)
