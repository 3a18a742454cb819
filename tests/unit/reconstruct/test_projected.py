import json

import numpy as np
import pytest

from headsr.acquisition.measurement import load_study
from headsr.reconstruct.interpolate import fused_average
from headsr.reconstruct.projected import project_onto


def test_a_volume_that_agrees_already_is_left_alone(measure, tiny_head) -> None:
    study = load_study(measure(["axial", "coronal"], noise=0.0))
    projected, record = project_onto(tiny_head[0], study)
    np.testing.assert_array_equal(projected, tiny_head[0])
    assert (record["outcome"], record["change"]) == ("agreed", 0.0)
    assert all(entry["rms_before"] == entry["rms_after"] for entry in record["views"])


def test_projection_moves_a_volume_only_as_far_as_the_noise(measure) -> None:
    study = load_study(measure(["axial", "coronal"], noise=0.02))
    _, record = project_onto(fused_average(study), study)
    for entry in record["views"]:
        assert entry["rms_before"] > 0.02 >= entry["rms_after"]
    assert max(entry["rms_after"] for entry in record["views"]) > 0.015


def test_what_was_done_is_plain_json_and_silent(measure, recwarn, capsys) -> None:
    study = load_study(measure(["axial", "coronal"], noise=0.02))
    _, record = project_onto(fused_average(study), study)
    assert json.loads(json.dumps(record)) == record
    assert record["outcome"] == "met" and 0 < record["change"] <= record["change_at_most"]
    assert "projection: met, changed by" in capsys.readouterr().out and not recwarn.list


def test_scans_that_contradict_each_other_are_named_in_a_warning(measure, tiny_head) -> None:
    study = load_study(measure(["axial", "coronal"], noise=0.01))
    study.scans[1].data.mul_(1.3)
    with pytest.warns(UserWarning, match="contradict each other as much .* is published as estimated") as caught:
        projected, record = project_onto(tiny_head[0], study)
    assert record["outcome"] == "contradictory" and "coronal" in str(caught[0].message)
    np.testing.assert_array_equal(projected, np.maximum(tiny_head[0], 0))


def test_an_estimate_that_is_not_finite_is_refused(measure, tiny_head) -> None:
    broken = tiny_head[0].copy()
    broken[3, 4, 5] = np.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        project_onto(broken, load_study(measure(["axial"])))
