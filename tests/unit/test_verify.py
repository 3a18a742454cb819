"""Records of jobs, and what verifying them finds. The jobs are made up: a scan, a volume from it, a table from that."""

import dataclasses
import json
import os
import re
import subprocess
from types import MappingProxyType

import pytest

from headsr.files import tree_hash, write_json
from headsr.plan import PlannedJob
from headsr.provenance import (
    Content,
    Record,
    RecordError,
    commit_at,
    content_of,
    contents_of,
    plain_params,
    read_record,
    record_path,
    write_record,
)
from headsr.verify import State, verify_results


def job(rule, inputs, outputs, *, parts=MappingProxyType({}), temporary=(), **params):
    stage, log = {rule: 1, **parts}, f"logs/{rule}.log"
    return PlannedJob(rule, stage, params, tuple(inputs), tuple(outputs), frozenset(temporary), log, runs=False)


FETCH = job("fetch", [], ["raw/scan.gz"], temporary=["raw/scan.gz"], key="MD5E-s4--abc")
FIT = job(
    "fit",
    ["raw/scan.gz"],
    ["volumes/store.zarr/zarr.json", "volumes/x.nii"],
    parts={"network.residual2d": 1},
    recipe={"steps": 8, "seed": 0},
)
TABLE = job("table", ["volumes/x.nii"], ["tables/t.md"])
JOBS = [FETCH, FIT, TABLE]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder (the working directory) in which the three jobs ran; the scan was temporary."""
    monkeypatch.chdir(tmp_path)
    for folder in ("raw", "volumes/store.zarr/c", "tables"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "raw/scan.gz").write_text("scan")
    (tmp_path / "volumes/store.zarr/c/0").write_text("shard")
    held = tree_hash(tmp_path / "volumes/store.zarr")
    write_json("volumes/store.zarr/zarr.json", {"attributes": {"headsr": {"content": held}}})
    (tmp_path / "volumes/x.nii").write_text("volume")
    (tmp_path / "volumes/x_residual.nii").write_text("residual")
    (tmp_path / "tables/t.md").write_text("table")
    for done in JOBS:
        beside = ["volumes/x_residual.nii"] if done is FIT else []
        record(done, beside)
    (tmp_path / "raw/scan.gz").unlink()
    return tmp_path


def record(done, beside=()):
    sources = {path: content.sha256 for path, content in contents_of(done.inputs, ".").items()}
    made = Record(
        done.rule,
        done.stage,
        plain_params(done.params),
        sources,
        contents_of(done.outputs, "."),
        contents_of(beside, "."),
        "0",
        "c",
    )
    write_record(record_path(".", done.log), made)


def found(jobs=JOBS, **how):
    """State, path and reason of every finding."""
    return [(str(f.state), f.path, f.reason) for f in verify_results(jobs, ".", **how).findings]


def changed(job_, **fields):
    return [dataclasses.replace(done, **fields) if done is job_ else done for done in JOBS]


def test_all_is_well(results):
    verdict = verify_results(JOBS, ".", deep=True)
    assert verdict.findings == () and verdict.whole == 3
    assert verdict.text() == "3 outputs as they should be; 0 stale, 0 damaged, 0 missing, 0 orphan"


def test_another_key_makes_the_scan_and_all_that_follows_stale(results):
    verdict = verify_results(changed(FETCH, params={"key": "MD5E-s4--def"}), ".")
    assert {f.path for f in verdict.of(State.STALE)} == {path for done in JOBS for path in done.outputs}
    assert "key was 'MD5E-s4--abc' and is 'MD5E-s4--def'" in verdict.findings[0].reason
    assert verdict.findings[-1].reason == "follows from volumes/x.nii"
    assert verdict.remake == ["raw/scan.gz"]
    assert "--forcerun raw/scan.gz" in verdict.text()


def test_another_recipe_is_named_by_what_changed_in_it(results):
    jobs = changed(FIT, params={"recipe": {"steps": 9, "seed": 0}})
    assert found(jobs)[:2] == [("stale", path, "recipe.steps was 8 and is 9") for path in FIT.outputs]
    assert found(jobs)[2][:2] == ("stale", "tables/t.md")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"stage": {"table": 2}}, "the version of table was 1 and is 2"),
        ({"stage": {"table": 1, "metric.psnr": 1}}, "the version of metric.psnr was absent and is 1"),
        ({"rule": "sheet"}, "made by table, and now sheet makes it"),
        ({"params": {"title": "T"}}, "title was absent and is 'T'"),
        (
            {"inputs": ("volumes/x.nii", "volumes/y.nii")},
            "made without volumes/y.nii, and now it is the other way round",
        ),
        ({"inputs": ()}, "made with volumes/x.nii, and now it is the other way round"),
    ],
)
def test_what_a_job_would_do_otherwise_today(results, fields, reason):
    assert found(changed(TABLE, **fields)) == [("stale", "tables/t.md", reason)]


def test_a_repaired_part_is_named_and_makes_what_uses_it_stale(results):
    jobs = changed(FIT, stage={"fit": 1, "network.residual2d": 2})
    reason = "the version of network.residual2d was 1 and is 2"
    assert found(jobs)[:2] == [("stale", path, reason) for path in FIT.outputs]
    assert found(jobs)[2] == ("stale", "tables/t.md", "follows from volumes/x.nii")


def test_another_recipe_says_more_than_the_parts_that_it_uses(results):
    recipe, stage = {"steps": 8, "seed": 0, "network": "unet"}, {"fit": 1, "network.unet": 1}
    assert (
        found(changed(FIT, params={"recipe": recipe}, stage=stage))[0][2] == "recipe.network was absent and is 'unet'"
    )


def test_recorded_parameters_that_decide_nothing_are_not_compared(results):
    record(dataclasses.replace(TABLE, params={"commit": "abc"}))
    assert found() == []


def test_made_from_other_bytes_than_were_recorded(results):
    """The volume was replaced by hand, the table made from that, and the volume then put back."""
    (results / "volumes/x.nii").write_text("edited")
    record(TABLE)
    (results / "volumes/x.nii").write_text("volume")
    reason = "made from another volumes/x.nii than the one that was recorded"
    assert found(deep=True) == [("stale", "tables/t.md", reason)]


def test_a_missing_output_is_missing_and_what_was_made_from_it_is_not_stale(results):
    (results / "volumes/x.nii").unlink()
    assert found() == [("missing", "volumes/x.nii", "fit made it, and all that is made from it is there")]
    assert "nothing waits for it: made again by adding to your snakemake command\n  -- volumes/x.nii" in (
        verify_results(JOBS, ".").text()
    )
    planned = verify_results(changed(FIT, runs=True), ".")
    assert [finding.reason for finding in planned.findings] == ["the next run makes it (fit)"]
    assert "--" not in planned.text()


def test_what_follows_from_a_missing_and_outdated_output_is_stale(results):
    (results / "volumes/x.nii").unlink()
    (results / "volumes/store.zarr/zarr.json").unlink()
    states = [f[:2] for f in found(changed(FIT, stage={"fit": 2, "network.residual2d": 1}))]
    assert states == [
        ("missing", "volumes/store.zarr/zarr.json"),
        ("missing", "volumes/x.nii"),
        ("stale", "tables/t.md"),
    ]


def test_an_output_without_a_record_is_stale(results):
    record_path(".", TABLE.log).unlink()
    assert found() == [("stale", "tables/t.md", "no record says what it was made from")]


def test_what_was_made_from_an_unrecorded_output_follows_from_it(results):
    record_path(".", FIT.log).unlink()
    verdict = verify_results(JOBS, ".")
    assert [finding.path for finding in verdict.of(State.STALE)] == [*FIT.outputs, *TABLE.outputs]
    assert verdict.remake == [FIT.outputs[0]]


def test_without_the_record_of_a_scan_that_is_gone_nothing_says_what_was_made_from(results):
    record_path(".", FETCH.log).unlink()
    verdict = verify_results(JOBS, ".")
    assert verdict.findings[0].reason == "no record says what its raw/scan.gz was made from"
    assert {finding.path for finding in verdict.findings} == {*FIT.outputs, *TABLE.outputs}
    assert verdict.remake == [FIT.outputs[0]]


def test_where_nothing_was_made_yet_everything_is_missing_and_nothing_stale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = [dataclasses.replace(one, runs=True) for one in JOBS]
    assert {finding[0] for finding in found(jobs)} == {"missing"}
    assert verify_results(jobs, ".").text() == "nothing has been made yet: the next run makes all 3 outputs"


def test_what_a_run_that_has_begun_still_makes_is_a_line_a_rule(results):
    more = [job("draw", [], [f"figures/{n}.png" for n in range(400)]), job("say", [], ["report.html"])]
    said = verify_results([*JOBS, *(dataclasses.replace(one, runs=True) for one in more)], ".").text().splitlines()
    assert said == [
        "MISSING report.html: the next run makes it (say)",
        "MISSING 400 outputs of draw: the next run makes them",
        "3 outputs as they should be; 0 stale, 0 damaged, 401 missing, 0 orphan",
    ]


def test_a_cut_file_is_damaged_at_a_glance(results):
    (results / "volumes/x.nii").write_text("volu")
    assert found() == [("damaged", "volumes/x.nii", "4 bytes, and 6 when it was made")]


@pytest.mark.parametrize("path", ["volumes/x.nii", "volumes/x_residual.nii", "volumes/store.zarr/c/0", "tables/t.md"])
def test_one_flipped_bit_is_found_when_all_is_read(results, path):
    file = results / path
    content, times = bytearray(file.read_bytes()), file.stat()
    content[1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert found() == []
    [(state, _, reason)] = found(deep=True)
    assert state == "damaged" and "SHA-256" in reason


def test_a_lost_shard_is_damage_at_a_glance(results):
    (results / "volumes/store.zarr/c/0").unlink()
    [(state, path, _)] = found()
    assert (state, path) == ("damaged", "volumes/store.zarr/zarr.json")


def test_a_lost_file_beside_an_output_is_damage_that_the_output_repairs(results):
    (results / "volumes/x_residual.nii").unlink()
    verdict = verify_results(JOBS, ".")
    assert [(f.state, f.path, f.remake) for f in verdict.findings] == [
        (State.DAMAGED, "volumes/x_residual.nii", "volumes/store.zarr/zarr.json")
    ]


def test_a_lost_file_beside_an_output_that_the_next_run_makes_is_missing_and_no_damage(results):
    lost = "volumes/x_residual.nii"
    (results / lost).unlink()
    [finding] = verify_results(changed(FIT, runs=True), ".").findings
    assert (finding.state, finding.path, finding.made_by, finding.remake) == (State.MISSING, lost, "fit", "")
    there = "volumes/x_residual.json"
    (results / there).write_text("{}")
    made = read_record(record_path(".", FIT.log))
    write_record(record_path(".", FIT.log), dataclasses.replace(made, beside=made.beside | contents_of([there], ".")))
    again = dataclasses.replace(job("map", ["volumes/x.nii"], [lost, there]), runs=True)
    [finding] = verify_results([*JOBS, again], ".").findings
    assert (finding.state, finding.path, finding.made_by, finding.remake) == (State.MISSING, lost, "map", "")


def test_an_unreadable_record_is_damage_that_names_it(results):
    record_path(".", TABLE.log).write_text("{")
    [(state, path, reason)] = found()
    assert (state, path) == ("damaged", "tables/t.md") and "records/table.json" in reason


def test_a_file_that_no_job_makes_is_an_orphan_and_folders_of_others_are_left_alone(results):
    (results / "tables/old.md").write_text("x")
    (results / "elsewhere").mkdir()
    (results / "elsewhere/mine.txt").write_text("x")
    assert found() == [("orphan", "tables/old.md", "no job of this configuration makes it")]


def test_what_a_job_no_longer_planned_had_made_are_orphans(results):
    assert [f[:2] for f in found(JOBS[:2])] == [("orphan", "tables/t.md")]
    assert {f[:2] for f in found([FETCH, TABLE])} >= {("orphan", "volumes/x.nii"), ("orphan", "volumes/store.zarr/c/0")}


def test_a_record_comes_back_as_it_was(tmp_path):
    before = Record(
        "fit", {"fit": 3}, {"a": [1, 2.5, None]}, {"x": "0" * 64}, {"y": Content("1" * 64, 7)}, {}, "0.1", "abc"
    )
    write_record(tmp_path / "records/fit/x.json", before)
    assert read_record(tmp_path / "records/fit/x.json") == before
    assert read_record(tmp_path / "records/fit/y.json") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"outputs": {}, "beside": {}}', '{"outputs": {"x": 1}, "beside": {}}']
)
def test_what_is_not_a_record_is_refused_by_name(tmp_path, text):
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(RecordError, match=r"fit\.json"):
        read_record(tmp_path / "fit.json")


def test_a_record_lies_where_the_log_does():
    path = record_path("results/demo", "results/demo/logs/fit_field/a/sub-01_T1w.log")
    assert path.as_posix() == "results/demo/records/fit_field/a/sub-01_T1w.json"


def test_params_are_compared_as_json_gives_them_back():
    assert plain_params({"a": (1, 2), "b": {"k": 1.0}}) == json.loads('{"a": [1, 2], "b": {"k": 1.0}}')


def test_a_store_s_content_is_its_mark_and_the_size_of_all_of_it(results):
    content = content_of("volumes/store.zarr/zarr.json")
    mark = (results / "volumes/store.zarr/zarr.json").stat().st_size
    assert content.bytes == mark + len("shard")


def test_the_commit_of_a_folder_is_git_s_and_none_outside_git(tmp_path):
    assert commit_at(tmp_path) == commit_at(tmp_path / "absent") == ""
    for words in (
        ["init", "-q"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    (tmp_path / "src").mkdir()
    assert re.fullmatch("[0-9a-f]{40}", commit_at(tmp_path / "src"))
