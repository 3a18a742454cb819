from pathlib import Path

import numpy as np
import pytest

from headsr.files import write_json
from headsr.simulate.anatomy import build_anatomy
from headsr.simulate.labelmap import load_label_map
from headsr.simulate.store import prepare_anatomy
from headsr.volumes import Grid, save_volume

SHARED = Path(__file__).parents[3].parent / "shared/data"


@pytest.fixture(scope="package")
def anatomy():
    return build_anatomy()


@pytest.fixture(scope="package")
def shared():
    """The real test data beside this checkout."""
    if not SHARED.exists():
        pytest.skip("the test data (../shared/data) are not beside this checkout")
    return SHARED


TABLE = """\
label	name	class	t1_mean	t1_mean_sd	t1_sd	t1_sd_sd
0	background	0	7.0	1.0	5.0	1.0
2	left cerebral white matter	2	160.0	8.0	10.0	1.0
3	left cerebral cortex	3	96.0	8.0	14.0	1.0
4	left lateral ventricle	1	44.0	4.0	20.0	2.0
24	CSF	1	44.0	4.0	20.0	2.0
25	left lesion	10	116.0	8.0	10.0	1.0
515	skull	22	30.0	3.0	10.0	1.0
511	skin	19	113.0	9.0	30.0	3.0
"""


def ball_head(half=34):
    """Nested balls (labels of TABLE) in a cube of 1 mm voxels: ventricle, white, cortex, CSF, skull, skin."""
    axes = np.ogrid[tuple(slice(-half, half + 1) for _ in range(3))]
    radius = np.sqrt(sum(axis**2 for axis in axes))
    labels = np.zeros(radius.shape, dtype=np.uint16)
    for outer, label in ((32, 511), (28, 515), (26, 24), (24, 3), (20, 2), (6, 4)):
        labels[radius < outer] = label
    labels[(radius > 8) & (radius < 10) & (axes[0] > 0)] = 25
    return labels


@pytest.fixture(scope="package")
def ball_folder(tmp_path_factory):
    """A folder with one label map, stored with axes in another order than RAS, and its table."""
    folder = tmp_path_factory.mktemp("labelmaps")
    affine = np.array([[-1.0, 0, 0, 34], [0, 0, 1, -34], [0, -1, 0, 34], [0, 0, 0, 1]])
    save_volume(folder / "sub-01_dseg.nii.gz", ball_head(), Grid((69, 69, 69), affine))
    (folder / "labels.tsv").write_text(TABLE)
    return folder


@pytest.fixture(scope="package")
def ball(ball_folder):
    return load_label_map(ball_folder / "sub-01_dseg.nii.gz", ball_folder / "labels.tsv")


@pytest.fixture(scope="package")
def index(ball_folder, tmp_path_factory):
    """Three anatomies of the ball head, one of them for validation, and the list of them."""
    folder, stores = tmp_path_factory.mktemp("index"), []
    for name, split in (("a", "train"), ("b", "val"), ("c", "train")):
        sources = ball_folder / "sub-01_dseg.nii.gz", ball_folder / "labels.tsv"
        prepare_anatomy(*sources, folder / f"{name}.safetensors")
        stores.append({"name": name, "split": split, "anatomy": f"{name}.safetensors", "key": "0"})
    write_json(folder / "index.json", {"stores": stores})
    return folder / "index.json"
