import pytest
import torch

from headsr.devices import choose_precision, processes_for


def test_bf16_only_where_it_is_native(monkeypatch):
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) is None
    assert choose_precision("bf16", cpu) is torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for native, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert choose_precision("auto", cpu) is dtype
    with pytest.raises(ValueError, match="precision 'fp8'"):
        choose_precision("fp8", cpu)


@pytest.mark.parametrize(
    ("given", "seen", "processes"), [(1, 0, 1), (4, 0, 1), (1, 4, 1), (2, 4, 2), (4, 2, 2), (0, 3, 3), (0, 0, 1)]
)
def test_a_process_for_each_gpu_that_a_job_was_given_and_sees(monkeypatch, given, seen, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    assert processes_for(given) == processes
