import numpy as np

from headsr.simulate import template
from headsr.volumes import load_volume


def test_template_files_share_a_grid_in_mni_space(tmp_path, anatomy, monkeypatch):
    monkeypatch.setattr(template, "build_anatomy", lambda: anatomy)
    outputs = {name: tmp_path / f"{name}.nii.gz" for name in ("head", "brain")}
    template.make_template(outputs, voxel_mm=6.0)
    head, brain = (load_volume(outputs[name]) for name in ("head", "brain"))
    assert brain.grid.same_as(head.grid)
    np.testing.assert_allclose(head.grid.corners, anatomy.grid.corners, atol=1e-3)
    assert set(np.unique(brain.data)) == {0.0, 1.0}
    assert head.data[brain.data == 1].mean() > 0.5
