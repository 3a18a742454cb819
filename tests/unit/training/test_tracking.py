"""The MLflow mirror: what it holds, that it copies once, and that its failures are only warnings."""

import builtins
import json
import sqlite3

import pytest

from headsr.files import read_json, write_json
from headsr.recipes import plain
from headsr.recipes.models import LossTerm
from headsr.training.tracking import (
    RunRecord,
    Synced,
    content_hash,
    failed_mirrors,
    flat,
    keys_hash,
    mirror_results,
    mirror_trainings,
    record_scores,
    record_training,
    sync_mlflow,
)


def write_history(path, steps):
    lines = [{"step": s, "loss": 1 / s, "share_l1": 0.25, "note": "x"} for s in steps]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def score_file(path, psnr=30.0):
    unit = {"method": "inr", "degradation": "axial_x4", "dataset": "demo", "scan": "sub-06", "suffix": "T1w"}
    more = {"profile": "box", "seed": 1, "data_range": 1.0, "trained_on": [], "source_key": "SHA256E-s1--a"}
    values = {"psnr": psnr, "ssim": "inf"}
    rows = [{"variant": "projected", "mask": "head", "metric": metric, "value": v} for metric, v in values.items()]
    write_json(path, {"unit": unit, **more, "rows": rows})
    return path


def test_the_mirror(tmp_path):
    """One database for all of it: making one takes seconds."""
    from mlflow import MlflowClient

    database = tmp_path / "deep" / "mlflow.db"
    history = write_history(tmp_path / "h.jsonl", range(1, 1203))
    write_json(
        tmp_path / "check.json",
        {"headsr": {"degradation": "axial_x4", "source_key": "k", "views": {"axial": {"rms_after": 0.01}}}},
    )

    def mirror(psnr=30.0):
        return mirror_results(
            database,
            experiment="headsr",
            histories={"edsr": history, "inr axial_x4 demo/sub-06_T1w": history},
            recipes={
                "edsr": {
                    "losses": plain({"l1": LossTerm(0.5)}),
                    "budget": {"steps": 5},
                    "many": {f"p{i}": i for i in range(120)},
                }
            },
            keys={"edsr": ["b", "a"]},
            scores=[score_file(tmp_path / "score.json", psnr)],
            checks={"inr axial_x4 demo/sub-06_T1w": tmp_path / "check.json"},
            commit="0123abc",
            record=tmp_path / "record.json",
        )

    assert mirror() == Synced(written=4, unchanged=0)
    assert mirror() == Synced(written=0, unchanged=4)
    assert mirror(psnr=31.0) == Synced(written=1, unchanged=3)

    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("headsr").experiment_id
    runs = {run.data.tags["headsr.unit"]: run for run in client.search_runs([experiment])}
    assert sorted(runs) == [
        "check/inr/axial_x4/demo/sub-06_T1w",
        "fit/inr/axial_x4/demo/sub-06_T1w",
        "model/edsr",
        "score/inr/axial_x4/demo/sub-06_T1w",
    ]
    model = runs["model/edsr"]
    assert model.info.status == "FINISHED"
    assert model.data.params["budget.steps"] == "5"
    assert model.data.params["losses.l1.weight"] == "0.5"
    assert model.data.metrics["share_l1"] == 0.25
    assert len(model.data.params) == 123
    assert model.data.tags["commit"] == "0123abc"
    assert model.data.tags["annex_keys"] == keys_hash(["a", "b"])
    over_time = client.get_metric_history(model.info.run_id, "loss")
    assert [(m.step, m.value) for m in sorted(over_time, key=lambda m: m.step)][::1201] == [(1, 1.0), (1202, 1 / 1202)]
    score = runs["score/inr/axial_x4/demo/sub-06_T1w"]
    assert score.data.metrics["projected.head.psnr"] == 31.0

    # A run that was cut off is made anew.
    client.update_run(model.info.run_id, status="RUNNING")
    assert mirror(psnr=31.0) == Synced(written=1, unchanged=3)
    # A locked database is a warning within seconds, and nothing is lost.
    with sqlite3.connect(database) as other:
        other.execute("BEGIN IMMEDIATE")
        assert mirror(psnr=32.0) is None
    assert mirror(psnr=31.0) == Synced(written=0, unchanged=4)


def test_running_trainings_are_mirrored_as_far_as_they_are(tmp_path, monkeypatch):
    seen = []

    def sync(database, *, experiment, runs):
        seen.extend((run.unit, content_hash(run)) for run in runs)
        return Synced(len(runs), 0)

    monkeypatch.setattr("headsr.training.tracking.sync_mlflow", sync)
    parts = [tmp_path / "segment-0.jsonl", tmp_path / "rolling.jsonl"]
    histories = {"edsr": parts, "ldm": [tmp_path / "none.jsonl"]}
    one = {"experiment": "headsr", "histories": histories, "recipes": {"edsr": {}, "ldm": {}}, "keys": {"edsr": ["a"]}}
    write_history(parts[0], [1, 2])
    assert mirror_trainings(tmp_path / "m.db", **one) == Synced(1, 0)
    write_history(parts[1], [3])
    mirror_trainings(tmp_path / "m.db", **one)
    assert [unit for unit, _ in seen] == ["model/edsr"] * 2 and seen[0][1] != seen[1][1]
    # Finished, it is the same run, and stays.
    done = record_training("edsr", history=write_history(tmp_path / "history.jsonl", [1, 2, 3]), recipe={}, keys=["a"])
    assert content_hash(done) == seen[1][1]


def test_without_mlflow(tmp_path, monkeypatch, caplog):
    real = builtins.__import__

    def no_mlflow(name, *args, **kwargs):
        if name.split(".")[0] == "mlflow":
            raise ImportError("no mlflow here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_mlflow)
    assert sync_mlflow(tmp_path / "m.db", experiment="headsr", runs=[]) is None
    assert "no mlflow here" in caplog.text


def test_a_place_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert sync_mlflow(tmp_path / "file" / "m.db", experiment="headsr", runs=[]) is None
    assert sync_mlflow(tmp_path, experiment="headsr", runs=[]) is None
    (tmp_path / "m.db").write_bytes(b"this is no database" * 100)
    assert sync_mlflow(tmp_path / "m.db", experiment="headsr", runs=[]) is None
    assert caplog.text.count("MLflow was not updated") == 3


def test_a_file_that_cannot_be_read_is_a_warning(tmp_path, caplog):
    nothing = {"histories": {}, "recipes": {}, "keys": {}, "checks": {}}
    record = tmp_path / "record.json"
    scores = [tmp_path / "none.json"]
    assert mirror_results(tmp_path / "m.db", record=record, experiment="x", scores=scores, **nothing) is None
    assert read_json(record)["synced"] is None
    assert "none.json" in caplog.text


def test_failures_are_counted_and_a_success_leaves_their_number(tmp_path, monkeypatch):
    record, answers = tmp_path / "mlflow.json", [None, None, Synced(0, 0)]
    monkeypatch.setattr("headsr.training.tracking.sync_mlflow", lambda *_, **__: answers.pop(0))
    nothing = {"histories": {}, "recipes": {}, "keys": {}, "checks": {}, "scores": []}
    counted = [failed_mirrors(record)]
    while answers:
        mirror_results(tmp_path / "m.db", record=record, experiment="x", **nothing)
        counted.append(failed_mirrors(record))
        record.unlink()  # as Snakemake does before it runs the job again
    assert counted == [0, 1, 2, 2]


def test_the_hash_is_of_everything_shown(tmp_path):
    history = write_history(tmp_path / "h.jsonl", [1, 2])

    def hashed(**change):
        inputs = {"history": history, "recipe": {"seed": 0}, "keys": ["a"]}
        return content_hash(record_training("edsr", **(inputs | change)))

    first = hashed()
    assert hashed() == first
    assert len({first, hashed(recipe={"seed": 1}), hashed(keys=["a", "b"]), hashed(commit="f")}) == 4
    write_history(history, [1, 2, 3])
    assert hashed() != first


def test_names_and_numbers(tmp_path):
    (record,) = record_scores([score_file(tmp_path / "s.json")])
    assert record.metrics == {"projected.head.psnr": 30.0, "projected.head.ssim": float("inf")}
    assert flat({"a": {"b": [1, 2], "c": "x"}, "d": None}) == {"a.b": "[1, 2]", "a.c": "x", "d": "null"}
    assert RunRecord("model/edsr").history is None


def test_every_family_of_scores_is_in_the_one_run_of_its_volume(tmp_path):
    first, second = score_file(tmp_path / "voxels.json"), tmp_path / "features.json"
    rows = [{"variant": "projected", "mask": "head", "metric": "kid", "value": 0.5}]
    write_json(second, read_json(first) | {"rows": rows})
    (record,) = record_scores([first, second])
    assert record.unit == "score/inr/axial_x4/demo/sub-06_T1w"
    assert record.metrics["projected.head.kid"] == 0.5 and record.metrics["projected.head.psnr"] == 30.0


@pytest.mark.parametrize("keys", [["a", "b"], ["b", "a"]])
def test_keys_have_one_name_in_any_order(keys):
    assert keys_hash(keys) == keys_hash(["a", "b"])
