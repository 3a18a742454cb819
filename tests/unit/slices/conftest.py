import numpy as np
import pytest

from headsr.files import write_json
from headsr.slices.extract import extract_slices
from headsr.slices.store import list_training_data
from headsr.volumes import Grid, save_volume

SHAPE = (24, 30, 18)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three scans in a results tree; an intensity is 100 x + 10 y + z voxels, so a crop tells what it shows."""
    root = tmp_path_factory.mktemp("results")
    stores = []
    for name, split, suffix in (("sub-01", "train", "T1w"), ("sub-02", "train", "T2w"), ("sub-03", "val", "T1w")):
        data = np.tensordot(np.indices(SHAPE), [100.0, 10.0, 1.0], axes=(0, 0)).astype(np.float32)
        scan = root / "preprocessed" / f"{name}_{suffix}.nii.gz"
        save_volume(scan, data, Grid(SHAPE, np.diag([1.0, 2.0, 3.0, 1.0])))
        mask = np.ones(SHAPE, np.uint8)
        mask[0, 0, 0] = 0
        save_volume(root / "mask.nii.gz", mask, Grid(SHAPE, np.diag([1.0, 2.0, 3.0, 1.0])))
        write_json(root / "preprocessed" / f"{name}_{suffix}.json", {"headsr": {"source_key": f"KEY-{name}"}})
        mark = root / "slices" / "demo" / name / f"{name}_{suffix}.zarr" / "zarr.json"
        extract_slices(scan, root / "mask.nii.gz", mark)
        stores.append((f"demo/{name}_{suffix}", split, suffix, str(mark)))
    list_training_data(reversed(stores), root / "models" / "any" / "training.json")
    return root
