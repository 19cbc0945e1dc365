"""A step of a chosen length between two adapters: ΔW = (1 − λ)·ΔW₀ + λ·ΔW₁.

ΔW = B·A of each layer (alpha equals rank, so LoRA's scale is 1). Blending the factors A and B
themselves is not linear in ΔW (scaling both by λ gives λ²), so the factors of both are
concatenated, which is exact at rank 2r, and cut back to rank r by the singular value decomposition,
which is the best approximation of that rank (Eckart and Young 1936).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

DOWN, UP = "lora_A", "lora_B"


def blend(
    parent: Mapping[str, torch.Tensor] | None, child: Mapping[str, torch.Tensor], step: float
) -> dict[str, torch.Tensor]:
    """The tensors of the adapter at `step` (λ, 0 to 1) of the way from parent to child.

    `parent` None stands for the untouched base (ΔW₀ = 0), for which the result is exact. Both hold
    PEFT's names, `….lora_A.weight` of shape (r, in) and `….lora_B.weight` of shape (out, r).
    """
    blended: dict[str, torch.Tensor] = {}
    for name, down in child.items():
        if DOWN not in name:
            continue
        other = name.replace(DOWN, UP)
        up = child[other]
        if parent is None:
            blended[name], blended[other] = down.clone(), up * step
            continue
        blended[name], blended[other] = _cut(
            torch.cat([parent[name], down]).float(),
            torch.cat([(1 - step) * parent[other], step * up], dim=1).float(),
            down.shape[0],
        )
    return blended


def _cut(down: torch.Tensor, up: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rank-`rank` factors of up·down, by QR of both and the SVD of the small core. Of a layer that
    is narrower than the rank, the factors' other rows and columns are 0."""
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    u, s, v = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    root = s[:rank].sqrt()
    missing = rank - len(root)
    return (
        F.pad(root[:, None] * (v[:rank] @ q_down.T), (0, 0, 0, missing)).contiguous(),
        F.pad(q_up @ u[:, :rank] * root, (0, missing)).contiguous(),
    )
