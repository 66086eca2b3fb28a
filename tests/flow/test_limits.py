"""Keeping the implied image within bounds: pipelines/flow/limits.py."""

import pytest
import torch
from torch import Tensor

from flowferry.pipelines.flow.limits import Limit, clipped, dynamic, limited
from flowferry.pipelines.flow.paths import PATHS, Path
from flowferry.pipelines.flow.solvers import SOLVERS

X1 = torch.tensor([[-3.0, -1.0, 0.0, 0.5, 2.0], [-0.5, 0.25, 0.1, 0.0, 0.9]], dtype=torch.float64)[:, None]


def test_clipping_touches_only_what_is_outside() -> None:
    assert torch.equal(clipped(1.5)(X1), X1.clamp(-1.5, 1.5))


def test_dynamic_thresholding_divides_a_sample_by_its_own_bound() -> None:
    limit = dynamic(0.75, 5.0)
    first, second = limit(X1)
    assert torch.equal(second, X1[1])  # all of it is within [−1, 1]
    torch.testing.assert_close(first, X1[0].clamp(-2, 2) / 2)  # three quarters of 0, 0.5, 1, 2, 3 are up to 2
    torch.testing.assert_close(dynamic(0.75, 1.5)(X1)[0], X1[0].clamp(-1.5, 1.5) / 1.5)
    assert limit(X1).abs().max() <= 1


@pytest.mark.parametrize("limit", [clipped(0.8), dynamic(0.9, 2.0)], ids=["clipped", "dynamic"])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_the_velocity_leads_to_the_limited_image_from_where_x_is(path: Path, limit: Limit) -> None:
    x, t = X1.flip(-1) / 3 + 0.1, torch.tensor(0.5, dtype=torch.float64)

    def v(x: Tensor, t: Tensor) -> Tensor:
        return path.velocity((x - path.beta(t) * X1) / path.alpha(t), X1, t)

    x0, x1 = path.endpoints(x, limited(v, path, limit)(x, t), t)
    torch.testing.assert_close(x1, limit(X1))
    torch.testing.assert_close(path.interpolate(x0, x1, t), x)
    unbound = limited(v, path, clipped(10.0))
    torch.testing.assert_close(unbound(x, t), v(x, t))
    end = SOLVERS["ancestral"].make_step(limited(v, path, limit), path, torch.zeros_like)(x, t, 1 - t)
    torch.testing.assert_close(end, limit(X1))
