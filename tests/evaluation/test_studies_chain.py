"""The study of the published chain: every step changes what it says, and the claimed density is the one claimed."""

import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from exact_scoring import random_coreset

from bpc.errors import ConfigError
from bpc.samplers import ExactSettings
from bpc.samplers.hmc import HMCConfig, hmc
from bpc.seeding import ChainGenerators, make_generator
from bpc_cli.main import main
from evaluation.protocols import kim2022_density, kim2022_settings
from evaluation.studies.chain import CLAIMED, STEPS, ChainStudy, _steps, chain_rows
from evaluation.studies.chain_report import run_chain_study

EXACT = ExactSettings(chains=2, warmup=2, samples=4, leapfrog_steps=2)
TINY = ChainStudy(chains=2, lengths=(0.25, 1.0), exact=EXACT, claimed_warmup=2, claimed_samples=4, test_images=40)


def test_each_step_changes_one_thing(net, digits, coreset):
    """Densities and starts of the six steps, recomputed; the kernels differ where the density does not."""
    published = kim2022_settings(TINY.protocol, "hmc", 1, net.num_params)
    steps = {s.name: s.plan for s in _steps(net, digits, coreset, published, TINY)}
    noise = torch.randn(2, net.num_params, generator=make_generator("cpu", 0))
    ce = torch.stack([F.cross_entropy(out, coreset.labels) for out in net(noise, coreset.points)])
    claimed = -10 * (ce + published.penalty * noise.norm(dim=1))
    prior = -noise.square().sum(1) / 2
    expected = {
        "published": claimed, "start": claimed, "rule": claimed, CLAIMED: claimed,
        "norm": -10 * ce + prior, "length": -10 * ce + prior, "weights": -len(digits.train) * ce + prior,
    }  # fmt: skip
    generators = ChainGenerators.from_seeds("cpu", [0, 1], "x")
    for name, density in expected.items():
        state = steps[name].kernel.init(noise, generators)
        state = getattr(state, "chain", state)
        torch.testing.assert_close(state.log_density.float(), density, rtol=1e-5, atol=1e-3)
    width = {"published": 0.1, CLAIMED: math.sqrt(net.num_params) / (10 * published.penalty)}
    for name in (*STEPS, CLAIMED):
        torch.testing.assert_close(steps[name].start(noise), width.get(name, 1.0) * noise)
    lengths = {name: (steps[name].iterations, steps[name].burn_in) for name in STEPS}
    assert set(lengths.values()) == {(20, 10), (6, 2)} and lengths["norm"] == (20, 10) and lengths["length"] == (6, 2)
    # the published rule draws small momenta and lets everything pass; the textbook's do not
    _, info = steps["start"].kernel.step(steps["start"].kernel.init(noise, generators), generators)
    assert not hasattr(info, "energy") and hasattr(steps["rule"].kernel.step(
        steps["rule"].kernel.init(noise, generators), generators)[1], "energy")  # fmt: skip


def test_the_claimed_penalty_is_a_prior_of_known_width():
    """Without a likelihood ||theta|| ~ Gamma(p, M lambda): HMC finds its mean and variance."""
    p, rate, chains = 30, 5.0, 64
    density = kim2022_density(lambda params: params.new_zeros(len(params)), 10, rate / 10)
    width = math.sqrt(p) / rate
    kernel = hmc(density, HMCConfig(step_size=0.2, leapfrog_steps=8, momentum_scale=1 / width, jitter=0.1))
    generators = ChainGenerators.from_seeds("cpu", range(chains), "norm")
    state = kernel.init(width * generators.normal(p), generators)
    norms = []
    for _ in range(150):
        state, _ = kernel.step(state, generators)
        norms.append(state.params.norm(dim=1))
    found = torch.stack(norms[20:])
    assert float(found.mean()) == pytest.approx(p / rate, rel=0.02)
    assert float(found.var()) == pytest.approx(p / rate**2, rel=0.15)


def test_rows_tables_and_figures(net, digits, tmp_path):
    """A row for each coreset, step and chain; the table's error is the spread over chains by sqrt(chains)."""
    cores = [random_coreset(digits, s) for s in (0, 1)]
    reference = torch.rand(40, 10, generator=make_generator("cpu", 1)).softmax(-1)
    found = run_chain_study(tmp_path, net, digits, cores, TINY, seed=3, reference=reference)
    assert len(found.rows) == 2 * (len(STEPS) + 1 + 2) * 2
    assert found.rows[["accuracy", "nll", "tv", "acceptance", "rms", "conditioning_ce"]].notna().all(axis=None)
    assert {p.name for p in tmp_path.iterdir()} >= {
        "chain.csv", "chain.md", "chain-staircase.png", "chain-length.png"
    }  # fmt: skip
    alone = chain_rows(net, digits, cores[1], TINY, seed=3, reference=reference)
    written = pd.read_csv(tmp_path / "chain.csv")
    mine = written[written["coreset"] == 1].reset_index(drop=True)
    assert mine["nll"].to_list() == pytest.approx(alone["nll"].to_list())
    # the same chain under its two names: as published, and once its length
    same = alone[alone["step"].isin(["published", "published x 1"])]
    first, second = (part["nll"].to_list() for _, part in same.groupby("step"))
    assert first == second
    values = alone.loc[alone["step"] == "published", "nll"]
    cell = found.tables[0].blocks[1][0].cells[3]
    assert cell.std == pytest.approx(values.std() / math.sqrt(2)) and cell.mean == pytest.approx(values.mean())
    spread = found.tables[0].blocks[2][0].cells[3]  # both coresets: the spread of their means
    means = found.rows[found.rows["step"] == "published"].groupby("coreset")["nll"].mean()
    assert spread.std == pytest.approx(means.std())


def test_what_does_not_fit_is_refused(capsys):
    with pytest.raises(ConfigError, match="two chains"):
        ChainStudy(chains=4, exact=EXACT)
    assert main(["study", "chain"]) != 0 and "--coreset" in capsys.readouterr().err
    assert main(["study", "linear", "--chains", "3"]) != 0 and "run.py study chain" in capsys.readouterr().err
