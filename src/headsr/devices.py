"""Where networks compute and how exactly, and the noise that is the same on every device."""

from __future__ import annotations

import torch

from headsr.seeds import seed_of


def choose_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processes_for(gpus: int) -> int:
    """How many processes a job starts that was given so many GPUs: one for each that it sees; one where it sees none.

    With 0 they were asked for by another name (a site's --gres): then one for each that it sees.
    """
    seen = torch.cuda.device_count()
    return max(1, min(gpus or seen, seen))


def choose_precision(wanted: str, device: torch.device) -> torch.dtype | None:
    """The type that matrix products are cast to, None for fp32: bf16 on request, or under auto where it is native.

    Native means CUDA from compute capability 8.0 on, or a CPU with AVX512-BF16 or AMX; elsewhere bf16 is emulated and
    slower than fp32. No fp16: it would need loss scaling.
    """
    if wanted not in ("fp32", "bf16", "auto"):
        raise ValueError(f"precision {wanted!r} is not one of fp32, bf16, auto")
    if wanted == "auto" and device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if wanted == "bf16" or (wanted == "auto" and native) else None


def generator_of(*names: str | int) -> torch.Generator:
    """A CPU generator seeded from names: noise is drawn on the CPU, so that every device trains on the same."""
    return torch.Generator().manual_seed(seed_of(*names))
