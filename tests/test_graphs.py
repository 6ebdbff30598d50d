"""Recordings of gradients: none on the CPU, the same bits on a GPU, and a reason where there can be none."""

import pytest
import torch

from bpc import graphs
from bpc.graphs import Recordings, without_graphs
from bpc.likelihood import LinearRegression
from bpc.posterior import Posterior
from bpc.weight_prior import isotropic

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Looks(LinearRegression):
    def __call__(self, params, points, labels):
        found = super().__call__(params, points, labels)
        return found if float(found.detach().sum()) < 1e30 else 2.0 * found


def make(likelihood, device, at_once=0):
    g = torch.Generator().manual_seed(0)
    points, labels = torch.randn(7, 4, generator=g).to(device), torch.zeros(7, dtype=torch.long, device=device)
    weights = torch.ones(7, device=device)
    return Posterior(likelihood, points, labels, weights, prior=isotropic(0.7), points_at_once=at_once)


def test_on_the_cpu_the_function_itself_is_called():
    recordings, calls = Recordings(), []
    for _ in range(3):
        recordings(lambda x: (calls.append(x), (x,))[1], torch.ones(1, 2))
    assert len(calls) == 3 and recordings.replayed == 0


def test_switched_off_inside_and_on_again_after_an_error():
    with pytest.raises(ValueError, match="out"), without_graphs():
        assert not graphs._enabled
        raise ValueError("out")
    assert graphs._enabled


@needs_cuda
@pytest.mark.parametrize("at_once", [0, 5])
def test_replays_have_the_bits_of_the_kernels(at_once):
    posterior = make(LinearRegression(0.5), "cuda", at_once)
    first, second = torch.randn(2, 3, 3, device="cuda").unbind(0)
    for answer in (posterior.value_and_gradient, posterior.likelihood_and_gradient):
        with without_graphs():
            truth = [answer(x) for x in (first, second)]
        got = [answer(x) for x in (first, second)]
        for (value, gradient), (true_value, true_gradient) in zip(got, truth, strict=True):
            assert torch.equal(value, true_value) and torch.equal(gradient, true_gradient)
    assert posterior._whole.replayed == posterior._likelihood.replayed == 1


@needs_cuda
def test_a_likelihood_that_looks_at_values_is_not_recorded(capsys):
    posterior, plain = make(Looks(0.5), "cuda"), make(LinearRegression(0.5), "cuda")
    x = torch.randn(2, 3, device="cuda")
    graphs._said.clear()
    torch.testing.assert_close(posterior.value_and_gradient(x), plain.value_and_gradient(x), rtol=0, atol=0)
    assert posterior._whole.replayed == 0 and "No CUDA graph" in capsys.readouterr().err
