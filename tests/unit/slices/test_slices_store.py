import subprocess
import sys

import pytest

from headsr.files import read_json, tree_hash, write_json
from headsr.slices.store import list_training_data


def test_the_list_names_stores_relative_to_itself(results):
    stores = read_json(results / "models" / "any" / "training.json")["stores"]
    assert [entry["store"] for entry in stores] == sorted(entry["store"] for entry in stores)
    assert stores[0]["store"] == "../../slices/demo/sub-01/sub-01_T1w.zarr"
    assert stores[0] | {"store": ""} == {
        "name": "demo/sub-01_T1w",
        "split": "train",
        "suffix": "T1w",
        "store": "",
        "source_key": "KEY-sub-01",
        "pixel_mm": {"axial": [2.0, 1.0], "coronal": [3.0, 1.0], "sagittal": [3.0, 2.0]},
        "counts": {"axial": 18, "coronal": 30, "sagittal": 24},
        "content": tree_hash(results / "models" / "any" / stores[0]["store"], leaving_out={"zarr.json"}),
    }


def test_the_list_refuses_nothing_and_what_is_no_store(tmp_path):
    with pytest.raises(ValueError, match="no scan of the model's data has the split train"):
        list_training_data([], tmp_path / "m" / "training.json")
    write_json(tmp_path / "a.zarr" / "zarr.json", {"zarr_format": 3, "node_type": "group"})
    with pytest.raises(ValueError, match="not a store of slices"):
        list_training_data([("a", "train", "T1w", tmp_path / "a.zarr" / "zarr.json")], tmp_path / "s" / "t.json")


def test_columns_in_the_wrong_order_are_refused(results):
    mark = results / "slices" / "demo" / "sub-01" / "sub-01_T1w.zarr" / "zarr.json"
    with pytest.raises(ValueError, match="not a split"):
        list_training_data([("train", "T1w", "KEY", mark)], results / "slices" / "other.json")


def test_listing_and_extracting_need_no_torch():
    code = "import sys, headsr.slices.store, headsr.slices.extract; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
