import pytest

from headsr.files import read_json
from headsr.simulate.index import list_anatomies

ROWS = [
    ("drawn/sub-02", "val", "results/anatomies/drawn/sub-02.safetensors", "GIT-s1--b", "table", {"prepare_anatomy": 1}),
    (
        "drawn/sub-01",
        "train",
        "results/anatomies/drawn/sub-01.safetensors",
        "GIT-s1--a",
        "table",
        {"prepare_anatomy": 1},
    ),
]


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda rows: (
        list_anatomies(rows, "results/models/any/training.json") or read_json("results/models/any/training.json")
    )


def test_the_list_names_every_anatomy_from_its_own_folder(index):
    first, second = index(ROWS)["stores"]
    assert {key: first[key] for key in ("name", "split", "anatomy")} == {
        "name": "drawn/sub-01",
        "split": "train",
        "anatomy": "../../anatomies/drawn/sub-01.safetensors",
    }
    assert second["name"] == "drawn/sub-02" and len(first["key"]) == 64 and first["key"] != second["key"]


@pytest.mark.parametrize(("place", "value"), [(3, "GIT-s1--c"), (4, "other"), (5, {"prepare_anatomy": 2})])
def test_another_map_table_or_version_is_another_key(index, place, value):
    before, changed = index(ROWS), list(ROWS[0])
    changed[place] = value
    after = index([tuple(changed), ROWS[1]])
    assert before["stores"][0] == after["stores"][0] and before["stores"][1]["key"] != after["stores"][1]["key"]


@pytest.mark.parametrize(("row", "split"), [(0, "train"), (1, "val")])
def test_a_split_without_anatomies_is_refused(index, row, split):
    with pytest.raises(ValueError, match=f"no anatomy of the model has the split {split}"):
        index([ROWS[row]])
