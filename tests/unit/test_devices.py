import pytest
import torch

from headsr.devices import choose_precision


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
