"""BatchNorm over the global batch. (torch's SyncBatchNorm does the same on GPUs only.)"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from configs.checks import UserError


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all processes, which hold equal parts of the batch.

    x [B, C, H, W] -> the same shape. Gradients flow through the statistics, to every process.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        h = x.float()
        mean = everywhere(h.mean(dim=(0, 2, 3), keepdim=True))
        variance = everywhere((h - mean).square().mean(dim=(0, 2, 3), keepdim=True))
        count = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten(), self.momentum)  # type: ignore[union-attr, arg-type]
            unbiased = variance.flatten() * count / (count - 1)
            self.running_var.lerp_(unbiased, self.momentum)  # type: ignore[union-attr, arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        normal = (h - mean) * (variance + self.eps).rsqrt()
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class Sum(torch.autograd.Function):
    """Over all processes. Each one's part is in the sum of all, so that the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        total = mine.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return Sum.forward(ctx, gradients[0])


def everywhere(mean: Tensor) -> Tensor:
    """The mean over all processes of each one's own mean."""
    return Sum.apply(mean) / dist.get_world_size()


def synchronize(network: nn.Module, kind: str) -> None:
    """Puts a GlobalBatchNorm in the place of each BatchNorm2d, with its tensors. Raises UserError if there is none."""
    children = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    found = [(parent, name, child) for parent, name, child in children if type(child) is nn.BatchNorm2d]
    if not found:
        raise UserError(f"--train.sync-batchnorm: found the network {kind}, accepted are those that have BatchNorm")
    for parent, name, old in found:
        new = GlobalBatchNorm(old.num_features, eps=old.eps, momentum=old.momentum)
        new.load_state_dict(old.state_dict())
        setattr(parent, name, new.to(old.weight.device))
