"""NUTS: its tree against a plain recursive one, its trajectories, its bookkeeping. Moments are in test_moments.py."""

import itertools

import pytest
import torch

from bpc.errors import ConfigError
from bpc.samplers import NUTSConfig, WarmupConfig, nuts, run, state_from_tensors, state_to_tensors, warmed_up
from bpc.samplers.adaptation import Variance, slow_windows
from bpc.seeding import ChainGenerators

SCALES = torch.tensor([1.0, 0.3, 3.0], dtype=torch.float64)


def gaussian(params):
    return -0.5 * (params / SCALES).square().sum(1)


def generators(k, seed=0):
    return ChainGenerators.from_seeds("cpu", [seed * 1000 + i for i in range(k)])


def turns(first, last, total):
    distance = total - 0.5 * (first + last)
    return bool((first @ distance <= 0) | (last @ distance <= 0))


def recursive_tree(q, r, step, depth):
    """(leaves as [(q, r)], valid) of 2^depth leapfrog steps: every subtree is asked whether it turned, as in the papers."""
    if depth == 0:
        r = r + 0.5 * step * (-q / SCALES**2)
        q = q + step * r
        r = r + 0.5 * step * (-q / SCALES**2)
        return [(q, r)], True
    first, good = recursive_tree(q, r, step, depth - 1)
    if not good:
        return first, False
    second, good = recursive_tree(*first[-1], step, depth - 1)
    leaves = first + second
    if not good:
        return leaves, False
    return leaves, not turns(leaves[0][1], leaves[-1][1], sum(x[1] for x in leaves))


@pytest.mark.parametrize("seed", range(30))
def test_the_tree_is_the_recursive_one(seed):
    """The same leapfrog steps, the same depth: the walk finds each U-turn of the recursion, at the leaf that completes it."""
    config = NUTSConfig(step_size=0.25, max_tree_depth=7)
    kernel = nuts(gaussian, config)
    start = SCALES * torch.randn(1, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    state = kernel.init(start, generators(1))
    _, info = kernel.step(state, generators(1, seed))

    random = generators(1, seed)
    momentum = random.normal(3)[0].double()
    forward = random.uniform(7)[0] < 0.5
    left = right = (start[0], momentum)
    total, depth, steps = momentum, 0, 0
    for level in range(7):
        ahead = bool(forward[level])
        leaves, good = recursive_tree(*(right if ahead else left), 0.25 if ahead else -0.25, level)
        steps += len(leaves)
        if not good:
            break
        left, right = (left, leaves[-1]) if ahead else (leaves[-1], right)
        total, depth = total + sum(x[1] for x in leaves), depth + 1
        if turns(left[1], right[1], total):
            break
    assert (int(info.depth), int(info.leapfrogs)) == (depth, steps)


def test_trajectories_grow_as_steps_shrink():
    lengths = []
    for step in (0.2, 0.05):
        kernel = nuts(gaussian, NUTSConfig(step_size=step))
        runs = [i.leapfrogs for _, i in run(kernel, torch.zeros(32, 3).double(), steps=10, generators=generators(32))]
        lengths.append(float(torch.stack(runs).mean()))
    assert 2.5 < lengths[1] / lengths[0] < 6.0


def test_k_chains_together_equal_k_alone():
    make = warmed_up(nuts(gaussian, NUTSConfig(step_size=0.5)), gaussian, WarmupConfig(warmup=40))
    start = SCALES * torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = torch.stack([s.params for s, _ in run(make, start, steps=60, generators=generators(3))])
    for i in range(3):
        alone = run(make, start[i : i + 1], steps=60, generators=ChainGenerators.from_seeds("cpu", [i]))
        torch.testing.assert_close(torch.cat([s.params for s, _ in alone]), together[:, i])


def test_divergence_ends_the_tree_and_the_chain_stays_finite():
    kernel = nuts(gaussian, NUTSConfig(step_size=1e4))
    for state, info in run(kernel, SCALES.repeat(4, 1), steps=3, generators=generators(4)):
        assert info.diverged.all()
        assert (info.leapfrogs == 1).all()
        assert torch.equal(state.params, SCALES.repeat(4, 1))


def test_mass_learns_the_scales():
    kernel = warmed_up(nuts(gaussian, NUTSConfig()), gaussian, WarmupConfig(warmup=400))
    for state, _ in run(kernel, torch.zeros(8, 3).double(), steps=400, generators=generators(8)):
        last = state
    ratio = last.chain.inverse_mass / SCALES**2
    assert float(ratio.min()) > 0.4 and float(ratio.max()) < 2.2


def test_windows_cover_the_slow_part():
    assert slow_windows(1000) == [(75, 100), (100, 150), (150, 250), (250, 450), (450, 950)]
    assert slow_windows(10) == []
    for warmup in (20, 50, 149, 151, 333, 700):
        windows = slow_windows(warmup)
        assert windows[-1][1] == warmup - (50 if warmup >= 150 else int(0.1 * warmup))
        assert all(a[1] == b[0] for a, b in itertools.pairwise(windows))


def test_running_variance():
    x = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen = Variance.empty(x[0])
    for row in x:
        seen = seen.update(row)
    torch.testing.assert_close(seen.mean, x.mean(0))
    torch.testing.assert_close(seen.squares / 6, x.var(0))
    expected = (7 * x.var(0) + 5e-3 * x.var(0).mean(1, keepdim=True)) / 12
    torch.testing.assert_close(seen.inverse_mass(), expected)


def test_state_survives_a_checkpoint():
    kernel = warmed_up(nuts(gaussian, NUTSConfig()), gaussian, WarmupConfig(warmup=30))
    state = kernel.init(torch.zeros(2, 3).double(), generators(2))
    for t in range(25):
        state, _ = kernel.step(state, generators(2, t))
    again = state_from_tensors(kernel.init(torch.zeros(2, 3).double(), generators(2)), state_to_tensors(state))
    for t in range(25, 35):
        state, _ = kernel.step(state, generators(2, t))
        again, _ = kernel.step(again, generators(2, t))
    assert torch.equal(state.params, again.params)


def test_errors():
    with pytest.raises(ConfigError):
        NUTSConfig(max_tree_depth=0)
    with pytest.raises(ConfigError):
        WarmupConfig(warmup=-1)
