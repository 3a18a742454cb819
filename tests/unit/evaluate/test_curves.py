"""Histories as they are read, and the picture of them."""

import json

import pytest
from PIL import Image

from headsr.evaluate.curves import _panels, draw_curves, series_of


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_read_by_name(tmp_path):
    path = write(
        tmp_path / "h.jsonl", [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "val_psnr": 30, "note": "x"}]
    )
    assert series_of(path) == {"loss": [(1, 0.5), (2, 0.25)], "val_psnr": [(2, 30.0)]}


@pytest.mark.parametrize("line", ["not json", '{"loss": 1.0}', '{"step": "x"}', "[1]"])
def test_the_bad_line_is_named(tmp_path, line):
    (tmp_path / "h.jsonl").write_text('{"step": 1, "loss": 1.0}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"h\.jsonl, line 2"):
        series_of(tmp_path / "h.jsonl")


def test_fits_of_one_method_share_a_panel():
    names = [
        "edsr",
        "inr axial_x4 demo/sub-06_T1w",
        "inr axial_x4 demo/sub-07_T1w",
        "inr orthogonal_x4 demo/sub-06_T1w",
    ]
    assert {title: len(paths) for title, paths in _panels(dict.fromkeys(names, "x")).items()} == {
        "edsr": 1,
        "inr axial_x4": 2,
        "inr orthogonal_x4": 1,
    }


def test_a_picture_of_models_and_fits(tmp_path):
    model = write(tmp_path / "m.jsonl", [{"step": s, "loss": 1 / s, "val_psnr": 20 + s} for s in (1, 2, 3)])
    fit = write(tmp_path / "f.jsonl", [{"step": s, "loss": 0.0} for s in (1, 2)])
    draw_curves({"edsr": model, "kl": model, "ldm": model, "inr x4 demo/sub-06_T1w": fit}, tmp_path / "c.png")
    assert Image.open(tmp_path / "c.png").height > 400


def test_shares_of_the_gradient_are_no_curve_of_a_loss(tmp_path):
    lines = [{"step": s, "train_l1": 1 / s, "learning_rate": 0.1} for s in (1, 2, 3)]
    draw_curves({"gan": write(tmp_path / "a.jsonl", lines)}, tmp_path / "before.png")
    shares = [{**line, "share_l1": 0.9, "share_vanilla": 0.0} for line in lines]
    draw_curves({"gan": write(tmp_path / "b.jsonl", shares)}, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "before.png").read_bytes()


def test_nothing_trained_is_a_picture_too(tmp_path):
    draw_curves({}, tmp_path / "c.png")
    assert (tmp_path / "c.png").exists()
