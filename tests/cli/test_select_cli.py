"""`run.py select` by gradients as a user types it: the weighted coreset, its scores under both protocols, the table."""

import re

import pytest
import torch
import torch.nn.functional as F
from cli import EXPERTS

import run
from bpc.coreset import load_coreset
from bpc.data import load_dataset
from bpc.models import ConvNet, ConvNetConfig
from expert_trajectories import TrajectoryStore

NETWORK = ["--dataset", "digits", "--width", "4", "--depth", "1"]
LENGTH = ["--iterations", "6", "--burn-in", "3", "--leapfrog-steps", "2", "--test-images", "60"]
EXACT = ["--chains", "2", "--warmup", "4", "--samples", "8", "--leapfrog-steps", "2", "--test-images", "60"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two coresets of each method, in a folder with their experts."""
    folder = tmp_path_factory.mktemp("select")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BPC_RUNS", str(folder / "runs"))
        patch.setenv("BPC_CACHE", str(folder / "cache"))
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens: offline
        for method in ("craig", "adacore"):
            for seed in ("0", "1"):
                where = ["--experts", "experts", "--seed", seed, "--out", f"{method}-{seed}"]
                assert run.main(["select", *EXPERTS, "--method", method, "--ipc", "3", *where]) == 0
        yield folder


def test_pictures_are_on_the_list_of_their_run_s_own_files(place):
    """What starting over removes, and what a store may hold before its run does; pixels alone have no PDF."""
    for folder, pictures in (("craig-0", {"coreset.png"}), ("experts", {"learning_curves.png", "learning_curves.pdf"})):
        assert pictures <= {path.name for path in (place / folder).iterdir()}
        assert pictures <= set((place / folder / ".files").read_text().split("\n"))
    assert {"learning_curves.png", "learning_curves.pdf"} <= set(TrajectoryStore.files_in(place / "experts"))


@pytest.mark.parametrize("method", ["craig", "adacore"])
@pytest.mark.parametrize("seed", [0, 1])
def test_points_and_weights_are_those_of_the_expert_s_gradients(place, method, seed):
    digits, coreset = load_dataset("digits"), load_coreset(place / f"{method}-{seed}")
    assert (coreset.method, coreset.ipc, coreset.seed) == (method, 3, seed)
    chosen = torch.tensor(coreset.provenance["indices"])
    assert torch.equal((coreset.images * 255).round().byte(), digits.train.images[chosen])
    assert coreset.labels.tolist() == [y for y in range(10) for _ in range(3)]
    assert f"expert {seed} of experts at epoch" in coreset.provenance["features"]

    net = ConvNet(ConvNetConfig(width=4, depth=1), digits.image_shape, 10)
    store = TrajectoryStore.open(place / "experts")
    params = store.snapshots(seed, 4, 4)
    p = net(params, digits.normalise(digits.train.images))[0].detach().double().softmax(1)
    gradients = p - F.one_hot(digits.train.labels, 10)
    seen = gradients if method == "craig" else gradients / (p * (1 - p) + 0.1)
    for y in range(10):
        members = torch.nonzero(digits.train.labels == y).flatten()
        mine = chosen[3 * y : 3 * y + 3]
        assert (digits.train.labels[mine] == y).all()
        owner = torch.cdist(seen[members], seen[mine]).argmin(1)
        assert torch.bincount(owner, minlength=3).tolist() == coreset.weights[3 * y : 3 * y + 3].tolist()
        # the first is the medoid, to the float32 of the logits
        cost = torch.cdist(seen[members], seen[members]).sum(0)
        assert float(cost[members == mine[0]]) <= float(cost.min()) * (1 + 1e-5)
    assert float(coreset.weights.sum()) == len(digits.train)


@pytest.mark.parametrize("method", ["craig", "adacore"])
def test_they_are_scored_and_compared(place, method, monkeypatch, capsys):
    """Two coresets with weights of their own in one evaluation, by both protocols."""
    monkeypatch.chdir(place)
    coresets = ["--coreset", f"{method}-0", f"{method}-1"]
    published = ["--protocol", "kim2022-scaled", "--seeds", "2", *LENGTH]
    assert run.main(["evaluate", *NETWORK, *coresets, *published, "--out", f"scores/{method}", "--no-table"]) == 0
    options = ["--protocol", "exact", "--reference", "none", *EXACT, "--out", f"exact/{method}", "--no-table"]
    assert run.main(["evaluate", *NETWORK, *coresets, *options]) == 0
    assert "weights sum to 1,297, a random one's to 30; exact-scaled makes both 1,297" in capsys.readouterr().err
    assert run.main(["compare", f"scores/{method}", f"exact/{method}", "--out", f"table-{method}"]) == 0
    name = {"craig": "CRAIG", "adacore": "AdaCore"}[method]
    text = (place / f"table-{method}" / "comparison.md").read_text()
    assert (
        len(re.findall(rf"^\| {name}[^|]*\| 3 \|", text, re.MULTILINE)) == 2
    )  # the mark of an unmixed chain may follow
    assert text.count("2 seeds") == 2
