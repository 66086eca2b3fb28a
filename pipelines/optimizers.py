"""Optimizers by name. Each is a list of torch optimizers, because Muon takes matrices only and AdamW the rest."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

FEW_CHANNELS = 16  # a layer with fewer inputs or outputs is the first or the last of its network


class KernelMuon(torch.optim.Muon):
    """torch's Muon (Jordan et al. 2024), which takes matrices only, for kernels [out, in, h, w] as [out, in·h·w].

    The columns, and those of the momentum that is saved, are in this order whatever the memory layout of the kernel.
    An update is as large as one of Adam's (Liu et al. 2025, eq. 4), so that both use the same learning rate.
    """

    found_inf: Tensor | None = None
    """[] or [1] on the device. If it is not 0, a step changes nothing, as with torch's fused optimizers."""

    def __init__(self, kernels: Iterable[nn.Parameter], lr: float) -> None:
        self.kernels = list(kernels)
        matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in self.kernels]
        super().__init__(matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Any = None) -> Any:
        """Take a step, as `torch.optim.Muon.step` does, unless `found_inf`."""
        (group,) = self.param_groups
        for kernel, matrix in zip(self.kernels, group["params"], strict=True):
            matrix.data = kernel.detach().flatten(1)  # a view where the kernel is contiguous, otherwise a copy
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for matrix in group["params"]:  # torch's Muon makes it in its first step, which may be refused
            self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
        touched = [*group["params"], *(state["momentum_buffer"] for state in self.state.values())]
        before = [tensor.detach().clone() for tensor in touched]
        result = super().step(closure)
        if self.found_inf is not None:
            for tensor, old in zip(touched, before, strict=True):
                tensor.detach().copy_(torch.where(self.found_inf.bool(), old, tensor))
        for kernel, matrix in zip(self.kernels, group["params"], strict=True):
            if not kernel.is_contiguous():
                kernel.detach().copy_(matrix.detach().view(kernel.shape))
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients of the kernels, always by setting them to None."""
        for kernel in self.kernels:
            kernel.grad = None


def adam(model: nn.Module, lr: float) -> list[Optimizer]:
    """Return Adam (Kingma & Ba 2015), which all published recipes here use."""
    return [torch.optim.Adam(model.parameters(), lr=lr, fused=True)]


def muon(model: nn.Module, lr: float) -> list[Optimizer]:
    """Return Muon for the weights of hidden layers, and AdamW for biases, norms, embeddings and the outer layers."""
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for p in model.parameters():
        inside = p.ndim >= 2 and min(p.shape[:2]) >= FEW_CHANNELS and all(p is not other for other in embeddings)
        (hidden if inside else rest).append(p)
    adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return [KernelMuon(hidden, lr), adamw] if hidden else [adamw]


OPTIMIZERS: dict[str, Callable[[nn.Module, float], list[Optimizer]]] = {"adam": adam, "muon": muon}


def set_rate(optimizers: Iterable[Optimizer], rate: float) -> None:
    """Give all parameters of the optimizers this learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
