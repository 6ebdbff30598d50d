"""A coreset learned and scored from Python: ten images stand in for 1,297 (half a minute on two cores).

python examples/coreset_in_ten_lines.py
"""

from tempfile import TemporaryDirectory

from bpc.coreset import Pseudocoreset
from bpc.data import load_dataset
from bpc.distill import OuterConfig, distill, initial_coreset, start
from bpc.divergences import ForwardKL, ForwardKLConfig
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from evaluation.kim2022_chains import Kim2022Config, sample_kim2022
from expert_trajectories import ExpertConfig, TrajectoryStore, train_experts

data = load_dataset("digits")
network = ConvNet(ConvNetConfig(width=32, depth=2), data.image_shape, data.num_classes)
divergence = ForwardKL(Classifier(network), ForwardKLConfig(inner_steps=20, expert_epochs=2, samples=10))
first = start(initial_coreset(data, 1, source="real", total_weight=None, seed=0), divergence)

with TemporaryDirectory() as folder:
    store = TrajectoryStore.create(f"{folder}/experts", network.num_params, {"dataset": "digits"})
    list(train_experts(store, network, data, ExpertConfig(lr=0.05, batch_size=64), num_experts=5, epochs=5, seed=0))
    windows = store.sampler(max_start=3, length=2, device="cpu")
    for state in distill(first, divergence, windows, None, OuterConfig(lr_points=10.0), steps=60, seed=0):
        print(f"\rstep {state.step} of 60, gradient {state.grad_norm:.3f}", end="", flush=True)

# HMC, five chains on each: the random subset that learning started from, and what became of it
about = {"mean": data.mean, "std": data.std, "dataset": data.name, "num_classes": data.num_classes}
for method, (points, labels, weights, *_) in {"random": first.coreset, "fkl": state.coreset}.items():
    coreset = Pseudocoreset(points=points, labels=labels, weights=weights, method=method, **about)
    config = Kim2022Config(sampler="hmc", protocol="kim2022-scaled")
    (chains,) = sample_kim2022(network, data, [coreset], config, seeds=range(5))
    accuracy, nll = chains.metrics["accuracy"], chains.metrics["nll"]
    print(f"\n{method:>6}: accuracy {accuracy.mean():.3f} ± {accuracy.std():.3f}, NLL {nll.mean():.2f} nats", end="")
print()
