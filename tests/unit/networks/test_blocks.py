import pytest
import torch

from headsr.networks.blocks import PixelNorm, ResidualBlock, Upsample, channels_last, group_norm, padded


@pytest.mark.parametrize(("inputs", "outputs", "embedding"), [(4, 4, 0), (4, 8, 0), (8, 4, 6)])
def test_a_residual_block_keeps_height_and_width(inputs, outputs, embedding):
    block = ResidualBlock(inputs, outputs, embedding=embedding)
    vector = torch.randn(2, embedding) if embedding else None
    assert block(torch.randn(2, inputs, 5, 7), vector).shape == (2, outputs, 5, 7)


def test_a_residual_block_starts_as_no_change():
    features = torch.randn(2, 4, 5, 7)
    assert torch.equal(ResidualBlock(4, 4, norm=PixelNorm)(features), features)


def test_the_embedding_reaches_the_features():
    block = ResidualBlock(4, 4, embedding=6)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    features = torch.randn(1, 4, 5, 7)
    assert not torch.allclose(block(features, torch.zeros(1, 6)), block(features, torch.ones(1, 6)))


def test_pixel_norm_sees_one_pixel_only():
    features = torch.randn(1, 4, 6, 6)
    assert torch.equal(PixelNorm(4)(features)[..., 2:4, 1:3], PixelNorm(4)(features[..., 2:4, 1:3]))
    assert torch.allclose(PixelNorm(4)(features).square().mean(dim=1), torch.ones(1, 6, 6), atol=1e-3)


@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (4, 1), (16, 4), (48, 4), (64, 16), (256, 32)])
def test_groups_hold_at_least_four_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_upsampling_doubles_both_sizes():
    assert Upsample(4, 6)(torch.randn(1, 4, 3, 5)).shape == (1, 6, 6, 10)


@pytest.mark.parametrize(
    ("size", "multiple", "expected"), [((5, 7), 4, (8, 8)), ((8, 4), 4, (8, 4)), ((1, 3), 2, (2, 4))]
)
def test_padding_repeats_the_edge(size, multiple, expected):
    images = torch.randn(1, 1, *size)
    result = padded(images, multiple)
    assert result.shape[-2:] == expected
    assert torch.equal(result[..., : size[0], : size[1]], images)
    assert result[..., -1, -1] == images[..., -1, -1]


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (2, 6, 5, 4, 3)])
def test_channels_last_changes_the_layout_alone_and_convolutions_keep_it(shape):
    features = torch.rand(shape)
    laid_out = channels_last(features)
    assert torch.equal(laid_out, features) and laid_out.stride(1) == 1 and features.stride(1) > 1
    convolution = [torch.nn.Conv2d, torch.nn.Conv3d][len(shape) - 4](6, 8, 3, padding=1)
    assert convolution(laid_out).stride(1) == 1
    assert torch.allclose(convolution(laid_out), convolution(features), atol=1e-6)
