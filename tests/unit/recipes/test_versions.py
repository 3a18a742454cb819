"""What a rule's params carry of versions."""

import pytest

from headsr.parts import LOSSES, Loss
from headsr.recipes import every_part, versions
from headsr.stages import STAGE_VERSIONS


def test_a_stage_without_parts_carries_its_own_version():
    assert versions("make_table") == {"make_table": STAGE_VERSIONS["make_table"]}


def test_parts_stand_beside_their_stage_sorted_by_name(monkeypatch):
    monkeypatch.setitem(LOSSES, "l1", Loss("headsr.losses.pixel.l1_loss", version=3))
    carried = versions("score_volume", ["network.residual2d", "loss.l1"])
    network = every_part()["network.residual2d"].version
    assert carried == {"loss.l1": 3, "network.residual2d": network, "score_volume": STAGE_VERSIONS["score_volume"]}
    assert list(carried) == sorted(carried)


@pytest.mark.parametrize(
    ("stage", "parts", "message"),
    [
        ("score_volumes", [], "unknown stage or part 'score_volumes'; did you mean 'score_volume'"),
        ("make_table", ["network.residual"], "unknown stage or part 'network.residual'; did you mean 'network.resid"),
    ],
)
def test_a_name_without_a_version_is_refused_with_the_nearest(stage, parts, message):
    with pytest.raises(ValueError, match=message):
        versions(stage, parts)
