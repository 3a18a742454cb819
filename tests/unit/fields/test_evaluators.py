import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from headsr.fields.evaluators import one_thread


@pytest.mark.parametrize(
    ("rows", "inputs", "units", "kind"),
    [
        (512, 256, 256, torch.float32),
        (512, 256, 1, torch.float32),
        (512, 64, 64, torch.bfloat16),
        (512, 64, 64, torch.float16),
    ],
)
def test_a_row_of_a_product_is_computed_alike_wherever_it_stands(rows, inputs, units, kind) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(n, units, generator=generator).to(kind) for n in (inputs, 1))
    matrix = torch.randn(rows, inputs, generator=generator).to(kind)
    with one_thread():
        product = torch.addmm(bias[0], matrix, weight)
        for places in _orders(rows, generator):
            assert torch.equal(torch.addmm(bias[0], matrix[places], weight), product[places])
        others = torch.full_like(matrix, torch.nan)
        others[rows - 3] = matrix[rows - 3]
        assert torch.equal(torch.addmm(bias[0], others, weight)[rows - 3], product[rows - 3])


@pytest.mark.parametrize(("inputs", "units"), [(32, 64), (64, 64), (64, 1)])
def test_a_column_of_a_product_is_computed_alike_wherever_it_stands(inputs, units, columns=8192) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(units, n, generator=generator) for n in (inputs, 1))
    matrix = torch.randn(inputs, columns, generator=generator)
    with one_thread():
        product = torch.addmm(bias, weight, matrix)
        for places in _orders(columns, generator):
            assert torch.equal(torch.addmm(bias, weight, matrix[:, places]), product[:, places])


def test_each_of_several_threads_computes_with_one_thread_while_others_come_and_go() -> None:
    turn, before = threading.Barrier(3), torch.get_num_threads()

    def work(stays: bool) -> list[int]:
        with one_thread():
            turn.wait()
            numbers = [torch.get_num_threads()]
            if stays:
                turn.wait()
                numbers += [torch.get_num_threads()]
        if not stays:
            turn.wait()
        return numbers

    torch.set_num_threads(4)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(work, [True, False, True])) == [[1, 1], [1], [1, 1]]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def _orders(count, generator):
    yield from (torch.arange(count).roll(by) for by in (1, 2, 3, 5, 8, 13, count // 2, count - 1))
    yield torch.randperm(count, generator=generator)
