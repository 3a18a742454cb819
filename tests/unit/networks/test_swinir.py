"""SwinIR: its published sizes, windows and their masks, and slices of any size."""

import pytest
import torch
import torch.nn.functional as F

from headsr.networks.build import check_network
from headsr.networks.swinir import SwinLayer, SwinNetwork, WindowAttention, windows_apart

CLASSICAL = {"channels": 180, "depths": [6] * 6, "enlarging": "stepwise"}
TINY = {"channels": 8, "depths": [2, 2], "heads": 2, "window": 4}


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [({"scale": 4}, 911_236), ({"scale": 2}, 904_744), ({}, 919_336), ({**CLASSICAL, "scale": 4}, 11_895_805)],
)
def test_it_has_the_published_number_of_parameters(settings, parameters):
    network = check_network({"architecture": "swinir", **settings})
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("enlarging", ["direct", "stepwise"])
@pytest.mark.parametrize(("scale", "shape"), [(1, (17, 22)), (2, (9, 14)), (4, (7, 5)), (4, (1, 3))])
def test_odd_slices_come_out_larger_and_training_starts_from_the_interpolated_ones(enlarging, scale, shape):
    network, images = SwinNetwork(**TINY, enlarging=enlarging, fine=8, scale=scale), torch.rand(2, 1, *shape)
    made = network(images)
    assert made.shape == (2, 1, *(scale * n for n in shape))
    assert torch.equal(made, images if scale == 1 else F.interpolate(images, scale_factor=scale, mode="bicubic"))


def test_masks_are_no_part_of_the_weights_so_that_any_size_takes_them():
    network = SwinNetwork(**TINY, skip=False)
    assert all(isinstance(value, torch.nn.Parameter) for value in network.state_dict(keep_vars=True).values())
    small, large = (network(torch.rand(1, 1, n, n)) for n in (16, 40))
    assert (small.shape[-1], large.shape[-1]) == (16, 40)


@pytest.mark.parametrize("shifted", [False, True])
def test_attention_is_what_torch_makes_of_the_same_parts(shifted):
    torch.manual_seed(2)
    attention, tokens = WindowAttention(8, 2, 4), torch.randn(3, 4, 16, 8)
    torch.nn.init.normal_(attention.bias)
    apart = windows_apart(8, 8, 4, torch.device("cpu")) if shifted else None
    parts = attention.queries_keys_values(tokens).view(3, 4, 16, 3, 2, 4).permute(3, 0, 1, 4, 2, 5)
    bias = attention.bias[attention.offsets].permute(2, 0, 1)
    mask = bias.expand(4, -1, -1, -1) if apart is None else bias.masked_fill(apart[:, None], -torch.inf)
    mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask)
    assert torch.allclose(
        attention(tokens, apart), attention.out(mixed.transpose(2, 3).reshape(3, 4, 16, 8)), atol=1e-6
    )


@pytest.mark.parametrize("shifted", [False, True])
def test_a_pixel_sees_its_window_and_nothing_else(shifted):
    """Also where shifting joined opposite rims: there windows are parts of a window."""
    layer, features = SwinLayer(8, 2, 4, shifted=shifted), torch.randn(1, 12, 8, 8, requires_grad=True)
    torch.nn.init.normal_(layer.attention.bias)
    for y, x in [(0, 0), (5, 3), (11, 7), (1, 6)]:
        (slope,) = torch.autograd.grad(layer(features)[0, y, x].sum(), features)
        seen = slope[0].abs().sum(-1) > 1e-9
        part = [(torch.arange(n) - (2 if shifted else 0)) // 4 for n in (12, 8)]
        expected = (part[0] == part[0][y])[:, None] & (part[1] == part[1][x])
        assert torch.equal(seen, expected), (y, x)


def test_windows_at_the_rims_are_cut_into_the_parts_that_belong_together():
    apart = windows_apart(8, 8, 4, torch.device("cpu"))
    assert apart.shape == (4, 16, 16)
    assert not apart[0].any(), "whole inside"
    assert [int((~window).sum()) for window in apart] == [16 * 16, 2 * 8 * 8, 2 * 8 * 8, 4 * 4 * 4]


def test_the_bias_is_that_of_how_pixels_lie_to_each_other():
    offsets = SwinLayer(8, 2, 4, shifted=False).attention.offsets
    assert offsets.unique().numel() == 7 * 7
    assert offsets[0, 5] == offsets[5, 10] == offsets[10, 15], "one down and one to the right"
    assert offsets[0, 1] != offsets[1, 0]


def test_a_part_that_shares_windows_gives_what_the_whole_gives_there():
    torch.manual_seed(0)
    network, images = SwinNetwork(**TINY, scale=2, skip=False), torch.rand(1, 1, 96, 96)
    with torch.no_grad():
        whole, part = network(images), network(images[..., 16:80, 16:80])
    assert torch.allclose(whole[..., 80:-80, 80:-80], part[..., 48:-48, 48:-48], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"scale": 3}, "scale 3"), ({"channels": 61}, "61 channels"), ({"window": 1}, "window 1")],
)
def test_what_cannot_be_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        SwinNetwork(**settings)
