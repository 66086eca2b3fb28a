"""How much noise an ancestral step adds: pipelines/flow/variances.py."""

import pytest
import torch
from torch import Tensor

from flowferry.pipelines.flow.paths import PATHS
from flowferry.pipelines.flow.solvers import SOLVERS, ancestral
from flowferry.pipelines.flow.variances import VARIANCES, further_channels, learned, own_channels, remembered

T, H = torch.tensor(0.25, dtype=torch.float64), torch.tensor(0.125, dtype=torch.float64)
X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(2, 2, 3)


def added(variance: object, path: str = "linear") -> Tensor:
    """Return what one step adds to its mean where the noise is 1."""

    def step(noise: float) -> Tensor:
        one = ancestral(lambda x, t: -x, PATHS[path], lambda x: torch.full_like(x, noise), variance)  # type: ignore[arg-type]
        return one(X, T, H)

    return step(1.0) - step(0.0)


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_the_smaller_variance_is_that_of_x_given_both_ends(path: str) -> None:
    """By Bayes' rule: 1/variance adds up over what x_t says of x_u and what the image says of it."""
    on, u = PATHS[path], T + H
    r = on.beta(T) / on.beta(u)
    q = on.alpha(T) ** 2 - r**2 * on.alpha(u) ** 2
    torch.testing.assert_close(added(VARIANCES["large"], path), q.sqrt().expand_as(X))
    of_both = 1 / (1 / on.alpha(u) ** 2 + r**2 / q)
    torch.testing.assert_close(added(VARIANCES["small"], path), of_both.sqrt().expand_as(X))


def test_a_learned_variance_lies_between_the_two_by_its_logarithm() -> None:
    large, small = added(VARIANCES["large"]), added(VARIANCES["small"])
    for share, expected in ((0.0, small), (1.0, large), (0.5, (large * small).sqrt())):
        found = added(learned(lambda x, t, share=share: torch.full_like(x, share)))  # type: ignore[misc]
        torch.testing.assert_close(found, expected)
    mixed = torch.rand(X.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(added(learned(lambda x, t: mixed)), large**mixed * small ** (1 - mixed))


def test_the_larger_is_added_where_none_is_asked_for() -> None:
    steps = [
        SOLVERS["ancestral"].make_step(lambda x, t: -x, PATHS["linear"], torch.ones_like, *variance)
        for variance in ([], [VARIANCES["large"]])
    ]
    assert torch.equal(*(step(X, T, H) for step in steps))


def test_an_answer_is_asked_once_for_what_a_step_needs_of_it() -> None:
    asked: list[Tensor] = []

    def answer(x: Tensor, t: Tensor) -> Tensor:
        asked.append(x)
        return torch.cat([2 * x, x + t], dim=1)

    once = remembered(answer)
    velocity, share = own_channels(once), further_channels(once)
    assert torch.equal(velocity(X, T), 2 * X) and torch.equal(share(X, T), X + T)
    assert len(asked) == 1
    other = X.clone()
    assert torch.equal(share(other, T), X + T) and torch.equal(share(other, H), X + H)
    assert len(asked) == 3
