"""The benchmark of the unrolled network: rows are what their names say, and its verdicts follow from the numbers."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import unrolled
from unrolled import BARS, FLAT, FLOOR, HEADS, MARGIN, SIDE, Baselines, Row

from headsr.networks.build import build_network
from headsr.recipes import Unrolled
from headsr.reconstruct.interpolate import in_view
from headsr.volumes import AXES, Grid, Volume
from headsr.weights import TrainedModel

GRID = Grid((24, 24, 24), np.diag([1.0, 1.0, 1.0, 1.0]))


def constant(value: float = 1.0) -> Volume:
    return Volume(np.full(GRID.shape, value, np.float32), GRID)


def study_of(row: Row, truth: Volume) -> unrolled.Study:
    return unrolled.measured(row, truth, np.ones(truth.data.shape, dtype=bool))


def record(psnr: float) -> dict:
    return {"psnr": psnr, "outcome": "met", "seconds": 1.0, "seam ratio": 1.0, "stripe peak": None, "FSC mm": 2.0}


def test_every_row_has_a_name_of_its_own_and_the_bars_come_first() -> None:
    rows = list(unrolled.rows())
    assert len({row.name for row in rows}) == len(rows) == 19 * len(HEADS) + 4
    assert rows[0].name == "orthogonal_x4_box_noise0/sub-chris_T1w"
    assert {row.factor for row in rows[: 6 * len(HEADS)]} == {4}
    assert {row.head for row in rows if row.kind == "flat"} == {FLAT}
    for bar in BARS:
        assert {row.head for row in rows if bar.holds(row)} == set(HEADS), bar.words


@pytest.mark.parametrize("factor", [2, 4, 6])
def test_orthogonal_scans_and_a_thick_one_are_block_means(factor: int) -> None:
    truth = Volume(np.random.default_rng(0).random(GRID.shape, dtype=np.float32), GRID)
    study = study_of(Row("orthogonal", factor, 0, "head"), truth)
    assert [scan.view for scan in study.scans] == list(AXES)
    for scan in study.scans:
        blocks = np.moveaxis(truth.data, AXES[scan.view], 0).reshape(24 // factor, factor, 24, 24).mean(1)
        np.testing.assert_allclose(np.moveaxis(scan.data.numpy(), AXES[scan.view], 0), blocks, atol=1e-6)
    (thick,) = study_of(Row("thick", factor, 0, "head"), truth).scans
    assert torch.equal(thick.data, study.scans[-1].data)


def test_turned_scans_have_gaps_and_cover_the_head() -> None:
    operators = unrolled.operators_of(Row("oblique", 0, 1, "head"), GRID)
    for (view, about, degrees), operator in zip(unrolled.TURNS, operators.values(), strict=True):
        axis = AXES[view]
        direction = operator.scan.affine[:3, :3] / operator.scan.voxel_size
        assert operator.axis == axis and math.isclose(operator.scan.voxel_size[axis], 5.0) and operator.thickness == 4.0
        assert math.isclose(direction[about, about], 1.0), "the axis that it is turned about stays"
        assert math.isclose(math.degrees(math.acos(direction[axis, axis])), abs(degrees)), view
        assert in_view(operator.scan, GRID).all(), "the head lies in the field of view"
        covered = operator.forward(torch.ones(GRID.shape))[operator.covered]
        torch.testing.assert_close(covered, torch.ones_like(covered))


@pytest.mark.parametrize("percent", [0, 1, 3])
def test_noise_is_what_the_name_says_and_drawn_by_it(percent: int) -> None:
    row = Row("orthogonal", 2, percent, "head")
    scans, again = study_of(row, constant()).scans, study_of(row, constant()).scans
    other = study_of(Row("orthogonal", 2, percent, "another head"), constant()).scans
    for scan, same, drawn in zip(scans, again, other, strict=True):
        assert scan.noise == percent / 100 and torch.equal(scan.data, same.data)
        assert torch.equal(scan.data, drawn.data) == (percent == 0)
        assert math.isclose(float(scan.data.std()), percent / 100, rel_tol=0.03, abs_tol=1e-6)


def test_the_crop_lies_around_the_middle_of_the_head_and_spares_its_faces() -> None:
    shape = (130, 110, 50)
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    inside = np.zeros(shape, dtype=bool)
    inside[20:126, :, 10:] = True  # around 72.5, 54.5, 29.5
    crop, head, scored = unrolled.cropped(Volume(data, Grid(shape, np.diag([1.0, 1.0, 2.0, 1.0]))), inside)
    assert crop.data.shape == (SIDE, SIDE, 48) == crop.grid.shape
    start = (25, 7, 2)
    np.testing.assert_array_equal(crop.data, data[25 : 25 + SIDE, 7 : 7 + SIDE, 2:50])
    np.testing.assert_allclose(crop.grid.affine[:3, 3], np.array(start) * (1, 1, 2))
    np.testing.assert_array_equal(head, inside[25 : 25 + SIDE, 7 : 7 + SIDE, 2:50])
    assert scored.sum() == (SIDE - 2 * MARGIN) ** 2 * (48 - MARGIN - 8), "8: where the head begins in the crop"


def test_what_was_measured_is_read_again_and_other_settings_are_refused(tmp_path, monkeypatch) -> None:
    row, asked = Row("thick", 4, 1, "head"), []

    def measure(row: Row, folder: str, methods: dict) -> dict:
        asked.append(list(methods))
        return {name: record(30.5) for name in methods}

    monkeypatch.setattr(unrolled, "measure", measure)
    first = Baselines(tmp_path / "cache.json").of(row, "folder", ["tv"])
    assert first == {name: record(30.5) for name in ("spline", "average", "tikhonov")}
    for _ in range(2):
        assert list(Baselines(tmp_path / "cache.json").of(row, "folder")) == list(unrolled.METHODS)
    assert asked == [["spline", "average", "tikhonov"], ["tv"]], "each measured once"
    monkeypatch.setattr(unrolled, "SIDE", SIDE + 12)
    with pytest.raises(SystemExit, match=r"cache\.json.*Name another file"):
        Baselines(tmp_path / "cache.json")


def test_one_row_is_measured_as_published_and_scored_inside(monkeypatch) -> None:
    rng = np.random.default_rng(1)
    truth = Volume(rng.random(GRID.shape, dtype=np.float32), GRID)
    inside = np.zeros(GRID.shape, dtype=bool)
    inside[4:-4, 4:-4, 4:-4] = True
    monkeypatch.setattr(unrolled, "truth_of", lambda folder, head: (truth, inside, inside))
    row = Row("thick", 2, 0, "head")
    found = unrolled.measure(row, "folder", {"spline": unrolled.METHODS["spline"]})["spline"]
    volume, _, record = unrolled.made(unrolled.measured(row, truth, inside), unrolled.METHODS["spline"])
    error = np.mean((volume - truth.data)[inside].astype(np.float64) ** 2)
    assert math.isclose(found["psnr"], -10 * math.log10(error), abs_tol=1e-6)
    assert found["outcome"] == record["outcome"] and found["FSC mm"] >= 2.0


def test_a_network_is_measured_with_what_its_intervals_hold(monkeypatch) -> None:
    ball = np.linalg.norm(np.indices(GRID.shape) - 11.5, axis=0) < 9
    truth = Volume(0.5 * ball.astype(np.float32), GRID)
    monkeypatch.setattr(unrolled, "truth_of", lambda folder, head: (truth, ball, ball))
    sizes = {"stages": 1, "widths": [4, 4], "blocks": [1, 1, 1], "solves": 2}
    model = TrainedModel("unrolled", build_network({"architecture": "unrolled", **sizes}).eval(), "fp32")
    method = {"network": Unrolled(model="unrolled")}
    row = Row("thick", 2, 1, "head")
    found = unrolled.measure(row, "folder", unrolled.METHODS | method, {"unrolled": model})
    assert found["network"]["psnr"] > 15 and 0 <= found["network"]["held"] <= 1
    (words,) = unrolled.intervals({row: found, Row("oblique", 0, 1, "head"): {"spline": record(20.0)}})
    assert f"hold {found['network']['held']:.1%} (" in words


def test_verdicts_and_means_are_those_of_the_numbers() -> None:
    heads, gains = ("a", "b"), {0: (1.0, 2.0), 1: (0.5, 1.0)}
    results = {
        Row("orthogonal", 4, percent, head): {
            "spline": record(25.0), "average": record(26.0), "tikhonov": record(27.0),
            "tv": record(27.2 + gained), "network": record(27.0 + gained),
        }
        for percent, pair in gains.items()
        for head, gained in zip(heads, pair, strict=True)
    }  # fmt: skip
    lines = list(unrolled.verdicts(results))
    assert "orthogonal x4, noise 0 %: over tikhonov | +1.5 | 2 | +1.50 | +1.00 | reached |" in lines[1]
    assert "orthogonal x4, noise 1 %: over tikhonov | +1.0 | 2 | +0.75 | +0.50 | MISSED |" in lines[2]
    assert lines[3].endswith("| 0 | | | not measured |")
    assert lines[-1].endswith(f"TV | {FLOOR:+.1f} | 4 | -0.20 | -0.20 | MISSED |")
    assert "| orthogonal_x4_box_noise0 | 2 | 25.00 | 26.00 | 27.00 | 28.70 |  | 28.50 |" in list(
        unrolled.means(results)
    )
    row, found = next(iter(results.items()))
    assert "| 25.00 | 26.00 | 27.00 | 28.20 |  | 28.00 | +3.00 | -0.20 |" in unrolled.line(row, found)


def test_without_the_network_a_row_shows_the_classical_methods_alone() -> None:
    row = Row("oblique", 0, 1, "head")
    found = {name: record(20.0) for name in row.baselines}
    assert "tv" not in found
    assert "| 20.00 | 20.00 | 20.00 |  |  |  |  |  | met, met, met |" in unrolled.line(row, found)
    assert all(line.endswith("not measured |") for line in list(unrolled.verdicts({row: found}))[1:])


def test_the_picture_of_a_head_is_drawn_from_its_volumes(tmp_path, monkeypatch) -> None:
    ball = np.linalg.norm(np.indices(GRID.shape) - 11.5, axis=0) < 9
    truth = Volume(ball.astype(np.float32), GRID)
    monkeypatch.setattr(unrolled, "truth_of", lambda folder, head: (truth, ball, ball))
    methods = {name: unrolled.METHODS[name] for name in ("spline", "tikhonov")}
    unrolled.draw(tmp_path / "head.png", Row(*unrolled.FIGURE, "head_T1w"), "folder", methods, {})
    with Image.open(tmp_path / "head.png") as picture:
        assert picture.width > 3 * 64, "the scan, two methods and the truth"
