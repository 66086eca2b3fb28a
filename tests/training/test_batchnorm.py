"""BatchNorm over the batches of all processes. With several processes: test_distributed.py."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import nn

from flowferry.configs.validation import UserError
from flowferry.models import build_model
from flowferry.pipelines.training.distributed import GlobalBatchNorm, synchronize_batchnorm


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.Sequential(nn.BatchNorm2d(6, momentum=0.3)), nn.GELU())


@pytest.mark.parametrize("dtype, rounding", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_of_one_process_it_is_torchs_own(alone: None, dtype: torch.dtype, rounding: float) -> None:
    own = network()
    ours = copy.deepcopy(own)
    synchronize_batchnorm(ours, "test")
    for step in range(3):
        x = torch.randn(5, 2, 9, 9, generator=torch.Generator().manual_seed(step)) * 3 + 1
        weight = torch.randn(6, 7, 7, generator=torch.Generator().manual_seed(step))
        found = []
        for net in (own, ours):
            net.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                y = net(x)
            (y * weight).mean().backward()
            found.append([y, *(p.grad for p in net.parameters()), *net.buffers()])
        for a, b in zip(*found, strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(b, a, rtol=rounding, atol=rounding)
    torch.testing.assert_close(ours.eval()(x), own.eval()(x), rtol=rounding, atol=rounding)


def test_the_network_keeps_its_tensors_and_their_names(tiny: Callable) -> None:
    plain = build_model(tiny("denoise-mnist"))
    before, order = copy.deepcopy(plain.state_dict()), [name for name, _ in plain.named_parameters()]
    synchronize_batchnorm(plain, "course-unet")
    assert sum(isinstance(m, GlobalBatchNorm) for m in plain.modules()) > 5
    assert not any(type(m) is nn.BatchNorm2d for m in plain.modules())
    assert [name for name, _ in plain.named_parameters()] == order
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_a_network_without_it_is_refused_in_one_line(tiny: Callable) -> None:
    match = r"^--train.sync-batchnorm: got the network patch-unet, expected one that has BatchNorm$"
    with pytest.raises(UserError, match=match):
        synchronize_batchnorm(build_model(tiny("fashion2mnist")), "patch-unet")
