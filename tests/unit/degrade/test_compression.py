import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from headsr.degrade.compression import LUMINANCE, compress


def smooth(n=2, shape=(24, 19)):
    rows, columns = (torch.linspace(0, 3, size) for size in shape)
    return (0.5 + 0.4 * torch.sin(2 * rows[:, None] + 3 * columns)).expand(n, *shape) + 0.1 * torch.rand(n, *shape)


def test_a_block_is_quantised_by_the_table():
    image = torch.rand(1, 8, 8)
    table = np.array(LUMINANCE) / 255  # quality 50 is the table itself
    coefficients = dctn(image[0].numpy(), norm="ortho")
    expected = np.round(coefficients / table) * table
    expected[0, 0] = coefficients[0, 0]
    result = compress(
        image, torch.tensor([8]), quality=torch.tensor([50.0]), offset=torch.zeros(1, 2, dtype=torch.long)
    )
    np.testing.assert_allclose(result[0].numpy(), idctn(expected, norm="ortho"), atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 19), (5, 9), (33, 32)])
def test_a_better_quality_is_nearer_and_a_constant_is_kept(shape):
    images, rows, offset = smooth(3, shape), torch.full((3,), shape[0]), torch.tensor([[0, 0], [3, 7], [6, 1]])
    errors = [
        float((compress(images, rows, quality=torch.full((3,), q), offset=offset) - images).abs().mean())
        for q in (10.0, 50.0, 95.0)
    ]
    assert errors[0] > errors[1] > errors[2] > 0
    constant = torch.full((3, *shape), 1.3)
    kept = compress(constant, rows, quality=torch.full((3,), 10.0), offset=offset)
    torch.testing.assert_close(kept, constant, atol=1e-5, rtol=0)


def test_the_blocks_begin_where_the_offset_says():
    image = smooth(1, (16, 16))
    zero = torch.zeros(1, 2, dtype=torch.long)
    quality = torch.tensor([20.0])
    whole = compress(image, torch.tensor([16]), quality=quality, offset=zero)
    part = compress(image[:, 3:, 5:], torch.tensor([13]), quality=quality, offset=torch.tensor([[3, 5]]))
    # The second row and column of blocks are the same 64 pixels in both.
    torch.testing.assert_close(part[:, 5:, 3:], whole[:, 8:, 8:], atol=1e-5, rtol=0)


def test_rows_beyond_the_image_are_not_looked_at():
    image = smooth(1, (20, 16))
    other = image.clone()
    other[:, 11:] = 50
    arguments = {"quality": torch.tensor([30.0]), "offset": torch.tensor([[2, 4]])}
    first, second = (compress(x, torch.tensor([11]), **arguments)[:, :11] for x in (image, other))
    assert torch.equal(first, second)
