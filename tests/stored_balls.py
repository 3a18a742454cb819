"""A label map of nested balls, prepared as trainings read it: the smallest head that can be painted."""

import numpy as np

from headsr.files import write_json
from headsr.simulate.store import prepare_anatomy
from headsr.volumes import Grid, save_volume

TABLE = """\
label	name	class	t1_mean	t1_mean_sd	t1_sd	t1_sd_sd
0	background	0	7.0	1.0	5.0	1.0
2	left cerebral white matter	2	160.0	8.0	10.0	1.0
3	left cerebral cortex	3	96.0	8.0	14.0	1.0
24	CSF	1	44.0	4.0	20.0	2.0
511	skin	19	113.0	9.0	30.0	3.0
"""
HALF, BALLS = 26, ((24, 511), (20, 24), (18, 3), (14, 2))


def store_balls(folder):
    """The path of an index of one anatomy, which is in both splits."""
    radius = np.sqrt(sum(axis**2 for axis in np.ogrid[(slice(-HALF, HALF + 1),) * 3]))
    labels = np.zeros(radius.shape, dtype=np.uint16)
    for outer, label in BALLS:
        labels[radius < outer] = label
    affine = np.eye(4)
    affine[:3, 3] = -HALF
    save_volume(folder / "balls_dseg.nii.gz", labels, Grid(labels.shape, affine))
    (folder / "labels.tsv").write_text(TABLE)
    prepare_anatomy(folder / "balls_dseg.nii.gz", folder / "labels.tsv", folder / "balls.safetensors")
    entry = {"name": "balls", "anatomy": "balls.safetensors", "key": "0"}
    write_json(folder / "index.json", {"stores": [{**entry, "split": split} for split in ("train", "val")]})
    return folder / "index.json"
