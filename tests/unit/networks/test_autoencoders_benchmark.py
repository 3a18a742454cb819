"""The benchmark of autoencoders: what block PCA, the noise's ceiling and a tile are, and that trainings are kept."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import autoencoders
from autoencoders import BlockPca, Head, Through, ceiling, psnr_of, sliced, tile_error

from headsr.files import write_json
from headsr.networks.autoencoder import block_cosines
from headsr.networks.build import build_network
from headsr.volumes import Grid, Volume


def test_diffusers_is_of_the_width_that_comes_nearest_in_size():
    blocks = autoencoders.networks()
    with torch.device("meta"):
        sizes = {name: autoencoders.numbers(build_network(block)) for name, block in blocks.items()}
        width = blocks["diffusers"]["channels"][0]
        for other in (width - 4, width + 4):
            block = {**blocks["diffusers"], "channels": [other, 2 * other, 4 * other]}
            off = abs(autoencoders.numbers(build_network(block)) - sizes["headsr"])
            assert off >= abs(sizes["diffusers"] - sizes["headsr"])
    assert abs(sizes["diffusers"] / sizes["headsr"] - 1) < 0.2
    for name, block in blocks.items():
        recipe = autoencoders.recipe_of(block, 7)
        assert recipe.network == block and recipe.budget.steps == 7 and recipe.data.source == "labels", name


def test_block_pca_keeps_what_lies_in_its_patterns_and_nothing_else():
    torch.manual_seed(0)
    patterns = block_cosines(4, 8)
    numbers = torch.randn(6, 8, 5, 7)
    images = nn.functional.pixel_shuffle(torch.einsum("nkhw,kp->nphw", numbers, patterns), 4)
    code = BlockPca([images[:3], images[3:]], 8)
    torch.testing.assert_close(code(images), images, atol=1e-5, rtol=0)
    noise = torch.randn(40, 1, 64, 64)
    assert float((BlockPca([noise], 8)(noise) - noise).var()) == pytest.approx(0.5, rel=0.05), "half of the numbers"


def test_the_ceiling_is_what_a_linear_code_leaves_of_noise():
    """A code that loses nothing of a smooth slice keeps as much of its noise as it has numbers."""
    torch.manual_seed(0)
    patterns = block_cosines(4, 8)
    noisy = 0.5 + 0.02 * torch.randn(8, 1, 96, 96)
    blocks = nn.functional.pixel_unshuffle(noisy, 4)
    kept = torch.einsum("nphw,kp,kq->nqhw", blocks, patterns, patterns)
    left = nn.functional.pixel_shuffle(kept, 4) - noisy
    assert -10 * math.log10(float(left.square().mean())) == pytest.approx(ceiling(0.02, 0.5), abs=0.1)
    assert ceiling(10 ** (-36.37 / 20), 0.25) == pytest.approx(36.37 + 1.25, abs=0.01)
    assert math.isnan(ceiling(0.0, 0.5))


def test_slices_of_all_planes_show_head_and_are_cut_to_blocks():
    inside = np.zeros((30, 26, 21), dtype=bool)
    inside[:, :, :18] = True
    volume = np.random.default_rng(0).random(inside.shape, dtype=np.float32)
    head = sliced("head", volume, inside, 4, noise=0.1)
    assert [tuple(one.shape) for one in head.slices] == [(7, 1, 24, 20), (6, 1, 28, 20), (4, 1, 28, 24)]
    np.testing.assert_array_equal(head.slices[2][1, 0], volume[:28, :24, 6])
    np.testing.assert_array_equal(head.inside[0][2, 0], inside[10, :24, :20])


def test_psnr_counts_what_is_inside_of_all_slices_together():
    slices = [torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 8, 12)]
    inside = [torch.zeros(one.shape, dtype=torch.bool) for one in slices]
    inside[0][:, :, :4], inside[1][..., :6] = True, True

    def off(images):
        return images + (0.1 if images.shape[-1] == 8 else 0.2)

    expected = (64 * 0.1**2 + 48 * 0.2**2) / 112
    assert psnr_of(off, Head("head", slices, inside, 0.0)) == pytest.approx(-10 * math.log10(expected), abs=1e-4)


def test_a_tile_of_ours_is_the_whole_slice_and_diffusers_is_not(monkeypatch):
    monkeypatch.setattr(autoencoders, "TILE", 96)
    monkeypatch.setattr(autoencoders, "EDGE", 44)
    torch.manual_seed(0)
    slices = torch.cat([torch.rand(1, 1, 128, 96), torch.zeros(1, 1, 128, 96)], dim=-1)
    head = Head("head", [slices, torch.rand(1, 1, 48, 128)], [], 0.0)
    off = {}
    for architecture in ("kl", "diffusers_kl"):
        block = {"architecture": architecture, "channels": [8, 8, 8], "blocks": 1, "latent_channels": 8}
        network = build_network(block).eval()
        for parameter in network.parameters():
            with torch.no_grad():
                parameter.add_(0.05 * torch.randn_like(parameter))
        off[architecture] = tile_error(Through(network), head)
    assert off["kl"] < 1e-4 < 1e-2 < off["diffusers_kl"]
    assert math.isnan(tile_error(nn.Identity(), Head("head", [slices[..., :48]], [], 0.0)))


def test_held_out_maps_are_those_of_validation(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("sub-01", "sub-02"):
        (maps / f"{name}_dseg.nii.gz").touch()
    (maps / "labels.tsv").touch()
    stores = [{"name": "sub-01", "split": "train"}, {"name": "sub-02", "split": "val"}]
    write_json(tmp_path / "index.json", {"stores": stores})
    assert list(autoencoders.held_out(tmp_path / "index.json", maps)) == ["sub-02"]
    write_json(tmp_path / "index.json", {"stores": [*stores, {"name": "sub-03", "split": "val"}]})
    with pytest.raises(SystemExit, match="no label map of sub-03"):
        autoencoders.held_out(tmp_path / "index.json", maps)


def test_the_table_has_a_line_for_every_code_and_the_ceiling():
    rng = np.random.default_rng(0)
    volume, inside = rng.random((40, 40, 40), dtype=np.float32), np.ones((40, 40, 40), dtype=bool)
    made_up, head = sliced("made up", volume, inside, 10), sliced("real", volume, inside, 10, noise=0.01)

    class Off(nn.Module):
        def forward(self, images):
            return images + 0.1

    heading, _, one, last = autoencoders.table({"off": Off()}, [made_up], [head], 0.5)
    assert "ms, 40 x 40" in heading and heading.endswith("| simulated, no noise | real |")
    assert one.startswith("| off | 0 | ") and one.endswith("| 20.00 | 20.00 |")
    assert last == f"| ceiling of the noise | | | | | {ceiling(0.01, 0.5):.2f} |"


def test_a_simulated_head_has_no_noise_is_brightest_at_1_and_is_kept(tmp_path, monkeypatch):
    ball = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0) < 9
    asked = []

    def simulate(anatomy, **of):
        asked.append((anatomy, of["noise"], of["suffix"], of["seed"]))
        return Volume(800 * ball.astype(np.float32), Grid(ball.shape, np.eye(4)))

    monkeypatch.setattr(autoencoders, "load_label_map", lambda *files: files)
    monkeypatch.setattr(autoencoders, "simulate_head", simulate)
    for _ in range(2):
        volume, inside = autoencoders.simulated("sub-15", "dseg", "table", tmp_path)
    assert asked == [(("dseg", "table"), 0.0, "T1w", autoencoders.seed_of("autoencoders", "sub-15"))]
    np.testing.assert_allclose(volume.data, ball, atol=1e-6)
    assert inside[12, 12, 12] and not inside[0, 0, 0]
