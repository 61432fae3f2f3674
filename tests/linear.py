"""The linear classifier of two classes, whose worst case under every budget has a closed form."""

import torch

from robustvid.budget import Budget

B, T, H, W = 5, 8, 6, 10
BUDGETS = {
    "linf-frame": Budget("linf", "2/255"),
    "linf-k": Budget("linf", "2/255", frames=3),
    "l2-frame": Budget("l2", frame=0.1),
    "l2-clip": Budget("l2", clip=0.2),
    "l2-both": Budget("l2", frame=0.1, clip=0.2),
    "l2-both-k": Budget("l2", frame=0.1, clip=0.2, frames=5),
    "l2-k": Budget("l2", frame=0.1, frames=3),
    "linf-per-clip": Budget("linf", torch.linspace(0.001, 0.02, B)),
    "linf-k-per-clip": Budget("linf", torch.linspace(0.001, 0.02, B), frames=torch.tensor([1, 2, 4, 7, 8])),
}


class LinearVideo(torch.nn.Module):
    """Two logits whose difference falls linearly with the clip, far from the decision."""

    def __init__(self):
        super().__init__()
        # Frames of very different weight, so that the choice of frames and the caps of the water level matter.
        weight = 0.05 * torch.randn(3, T, H, W, generator=torch.Generator().manual_seed(0)).double()
        self.difference = weight * torch.linspace(0.2, 3, T)[None, :, None, None]

    def forward(self, clips):
        other = ((clips - 0.5) * self.difference).sum((1, 2, 3, 4))
        return torch.stack([torch.full_like(other, 25.0), other], 1)


def worst_case(budget, difference):
    """The largest gain of the second logit, in closed form, for each clip."""
    gains = []
    for clip in range(B):
        one = budget.select(torch.tensor([clip]))
        frame, whole = (None if r is None else float(r) for r in (one.frame, one.clip))
        count = T if one.frames is None else int(one.frames)
        power = 1 if budget.norm == "linf" else 2
        terms = difference.abs().pow(power).sum((0, 2, 3)).pow(1 / power).sort(descending=True).values[:count]
        if whole is None:
            gains.append(frame * float(terms.sum()))
        elif frame is None:
            gains.append(whole * float(terms.norm()))
        else:
            gains.append(float((water_level(terms, frame, whole) * terms).sum()))
    return torch.tensor(gains, dtype=torch.float64)


def water_level(terms, cap, whole):
    """min(cap, s·terms) with Σ = whole², s by bisection: another way than the one under test."""
    if len(terms) * cap**2 <= whole**2:
        return torch.full_like(terms, cap)
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (terms * middle).clamp_max(cap).norm() < whole else (low, middle)
    return (terms * low).clamp_max(cap)
