"""Everything that runs on a GPU, against the CPU: a line PASS or FAIL for each thing, and all of them as JSON.

    python benchmarks/gpu_check.py --device cuda --out runs/gpu

In float64 the two must agree to 1e-10 of the answer's size; in float32 to rounding; what is said to give the same bits twice
must do so. A minute or two; ``--device cpu`` tries the script itself. The exit code is the number of failures, at most 100.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bpc.augment import OPERATIONS, AugmentConfig, apply, draw
from bpc.data import Dataset, load_dataset
from bpc.distill import OuterConfig, distill, initial_coreset, load_state, real_batches, save_state, start
from bpc.divergences import DIVERGENCES, ExpertWindow
from bpc.graphs import without_graphs
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.posterior import Posterior
from bpc.presets import distill_preset, make_divergence
from bpc.runs import device_name, resolve_device, versions
from bpc.runtime import keep_freed_memory, repeatable_kernels
from bpc.samplers import EXACT_SAMPLERS, KIM2022_SAMPLERS, ExactSettings
from bpc.samplers.hmc import leapfrog
from bpc.seeding import ChainGenerators, make_generator
from bpc.selection import SELECTIONS, build_coreset, select
from bpc.weight_prior import WEIGHT_PRIORS
from evaluation.exact_chains import ExactConfig, sample_exact
from evaluation.inputs import Inputs
from evaluation.kim2022_chains import Kim2022Config, sample_kim2022
from evaluation.metrics import compute, empty_sums, update
from expert_trajectories import ExpertConfig, TrajectoryStore, store_meta, train_experts

F64 = torch.float64
EXACT, ROUNDING = 1e-10, 2e-3  # relative, of float64 and of float32 (second derivatives, long sums)
FULL = 2e-5  # of float32 that is not TF32, whose error is about 3e-4
Finding = tuple[str, bool, str]
CHECKS: list[Callable[[torch.device], Iterator[Finding]]] = []


def check(function: Callable[[torch.device], Iterator[Finding]]) -> Callable[[torch.device], Iterator[Finding]]:
    CHECKS.append(function)
    return function


def near(label: str, got: Tensor, truth: Tensor, tolerance: float) -> Finding:
    """The Euclidean size of the difference, of the truth's; nan is never near."""
    got, truth = got.detach().cpu().double(), truth.detach().cpu().double()
    if got.shape != truth.shape:
        return label, False, f"shape {tuple(got.shape)}, expected {tuple(truth.shape)}"
    error = float((got - truth).norm() / truth.norm().clamp(min=1e-300))
    return label, error <= tolerance, f"{error:.1e}"


def same(label: str, first: Tensor, second: Tensor) -> Finding:
    gap = float((first.detach().double() - second.detach().double()).abs().max()) if first.numel() else 0.0
    return label, bool(torch.equal(first, second)), f"largest difference {gap:.1e}"


@contextlib.contextmanager
def cpu_stream() -> Iterator[None]:
    """Numbers asked of a CPU generator for another device are drawn on the CPU, in float64: the same on both."""
    original = torch.randn, torch.rand

    def drawn_by(draw_numbers: Any) -> Any:
        def numbers(*shape: Any, generator: Any = None, device: Any = None, dtype: Any = None) -> Tensor:
            if generator is None or generator.device.type != "cpu":
                found: Tensor = draw_numbers(*shape, generator=generator, device=device, dtype=dtype)
                return found
            drawn = draw_numbers(*shape, generator=generator, dtype=F64)
            return drawn.to(device or "cpu", dtype or torch.float32)

        return numbers

    torch.randn, torch.rand = (drawn_by(function) for function in original)
    try:
        yield
    finally:
        torch.randn, torch.rand = original


def moved(parts: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    """A NamedTuple with its floating tensors there and of that type, its other tensors there."""
    return parts._replace(
        **{
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in parts._asdict().items()
            if isinstance(value, Tensor)
        }
    )


def small_net(width: int = 8, prior: str = "instance") -> ConvNet:
    return ConvNet(ConvNetConfig(width=width, depth=2, norm=prior), (1, 8, 8), 10)


def digits() -> Dataset:
    return load_dataset("digits")


def posterior_on(
    device: torch.device | str, dtype: torch.dtype = torch.float32, *, net: ConvNet | None = None, m: int = 10,
    prior: str = "isotropic", per_chain: int = 0, at_once: int = 0,
) -> Posterior:  # fmt: skip
    """Of m digits that weigh ten each."""
    data, net = digits(), net or small_net()
    points = data.normalise(data.train.images[:m]).to(device, dtype)
    labels, weights = data.train.labels[:m].to(device), torch.full((m,), 10.0, device=device, dtype=dtype)
    if per_chain:
        points = torch.stack([points * (1.0 + 0.1 * i) for i in range(per_chain)])
    return Posterior(
        Classifier(net),
        points,
        labels,
        weights,
        prior=WEIGHT_PRIORS.get(prior).build(net, 0.5),
        per_chain=bool(per_chain),
        points_at_once=at_once,
    )


def starts(net: ConvNet, k: int, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
    noise = torch.randn(k, net.num_params, generator=torch.Generator().manual_seed(3), dtype=F64)
    return (0.2 * noise).to(device, dtype)


# What is checked ----------------------------------------------------------------------------------------------------------


@check
def arithmetic(device: torch.device) -> Iterator[Finding]:
    """Float32 is float32, not TF32 (whose error is about 3e-4): a Metropolis test needs differences of large energies."""
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=g, dtype=F64) for _ in range(2))
    yield near("matrix product in full float32", a.to(device, torch.float32) @ b.to(device, torch.float32), a @ b, FULL)
    x, w = torch.randn(8, 64, 16, 16, generator=g, dtype=F64), torch.randn(64, 64, 3, 3, generator=g, dtype=F64)
    got = torch.nn.functional.conv2d(x.to(device, torch.float32), w.to(device, torch.float32), padding=1)
    yield near("convolution in full float32", got, torch.nn.functional.conv2d(x, w, padding=1), FULL)
    flags = (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    yield "flags of torch", flags == (True, False, False), str(flags)


@check
def network(device: torch.device) -> Iterator[Finding]:
    g = torch.Generator().manual_seed(1)
    for config in (
        ConvNetConfig(width=16, depth=3),
        ConvNetConfig(width=16, depth=3, norm="group"),
        ConvNetConfig(width=16, depth=2, norm="none", activation="gelu"),
    ):
        net = ConvNet(config, (3, 32, 32), 10)
        params, images = net.init(3, g).double(), torch.randn(3, 5, 3, 32, 32, generator=g, dtype=F64)
        for what, x in (("shared", images[0]), ("each its own", images)):
            answers = []
            for place, dtype in (("cpu", F64), (device, F64), (device, torch.float32)):
                leaf, seen = (t.to(place, dtype).requires_grad_() for t in (params, x))
                logits = net(leaf, seen)
                along = torch.autograd.grad(logits.square().sum(), (leaf, seen))
                answers.append(torch.cat([t.detach().flatten().cpu().double() for t in (logits, *along)]))
            yield near(f"{net.name}, {what} images, float64", answers[1], answers[0], EXACT)
            yield near(f"{net.name}, {what} images, float32", answers[2], answers[0], ROUNDING)
        yield near(f"{net.name} features", net.features(params.to(device), images[0].to(device)),
                   net.features(params, images[0]), EXACT)  # fmt: skip


@check
def augmentation(device: torch.device) -> Iterator[Finding]:
    g = torch.Generator().manual_seed(2)
    images, along = (torch.randn(6, 3, 16, 16, generator=g, dtype=F64) for _ in range(2))
    for operation in OPERATIONS:
        found = []
        for place in ("cpu", device, device):
            chosen = draw(
                AugmentConfig(operations=(operation,)), 6, (3, 16, 16), make_generator("cpu", 5), device=place
            )
            x = images.to(place).requires_grad_()
            seen = apply(x, chosen)
            found.append(torch.stack([seen, *torch.autograd.grad(seen, x, along.to(place))]).detach().cpu())
        # the numbers drawn are float32 and their cosines are each library's own
        yield near(f"augmentation {operation}", found[1], found[0], 1e-6)
        yield same(f"augmentation {operation}, same bits twice", found[1], found[2])


@check
def divergences(device: torch.device) -> Iterator[Finding]:
    """Gradients in one piece and in many, with augmentation, from the same random numbers."""
    data, net = digits(), small_net()
    snapshots = net.init(8, torch.Generator().manual_seed(0))
    for name in DIVERGENCES.names():
        preset = dataclasses.replace(distill_preset("digits", name, 1), inner_steps=3, samples=4, steps=2)
        initial = initial_coreset(data, 1, source="real", total_weight=None, seed=0)
        initial = initial._replace(weights=initial.weights * torch.linspace(0.5, 1.5, 10))
        batch = real_batches(data, 40)(torch.Generator().manual_seed(1))

        def gradient(place: torch.device | str, dtype: torch.dtype, at_once: int, generator: torch.Generator) -> Tensor:
            divergence = make_divergence(name, preset, Classifier(net), AugmentConfig(), at_once=at_once)  # noqa: B023
            window = ExpertWindow(snapshots[: 1 + divergence.expert_epochs].to(place, dtype))
            real = moved(batch, place, dtype) if divergence.needs_real else None  # noqa: B023
            coreset = start(moved(initial, place, dtype), divergence).coreset  # noqa: B023
            with cpu_stream():
                found = divergence.gradient(coreset, window, real, generator)
            parts = (found.points, found.weights, *found.extras.values())
            return torch.cat([part.detach().flatten().cpu().double() for part in parts])

        truth = gradient("cpu", F64, 0, make_generator("cpu", 7))
        for at_once in (0, 7):
            got = gradient(device, F64, at_once, make_generator("cpu", 7))
            yield near(f"{name}, float64, {at_once or 'all'} at once", got, truth, EXACT)
        yield near(f"{name}, float32", gradient(device, torch.float32, 7, make_generator("cpu", 7)), truth, ROUNDING)
        twice = [gradient(device, torch.float32, 0, make_generator(device, 7)) for _ in range(2)]
        yield same(f"{name}, same bits twice", *twice)
        yield f"{name}, finite", bool(twice[0].isfinite().all()), ""


@check
def graphs(device: torch.device) -> Iterator[Finding]:
    """A replay against the kernels one by one."""
    cases = {
        "10 points, 4 chains": {},
        "float64": {"dtype": F64},
        "fan-in prior": {"prior": "fan-in"},
        "points of each chain": {"per_chain": 4},
        "three pieces": {"at_once": 16},
        "width 32, 300 points": {"net": small_net(32), "m": 300},
    }
    for what, options in cases.items():
        posterior = posterior_on(device, **options)  # type: ignore[arg-type]
        net, dtype = options.get("net", small_net()), options.get("dtype", torch.float32)
        first = starts(net, 4, device, dtype)  # type: ignore[arg-type]
        for method in ("value_and_gradient", "likelihood_and_gradient"):
            answer = getattr(posterior, method)
            with without_graphs():
                truth = [torch.cat([p.flatten() for p in answer(x)]) for x in (first, 0.5 * first)]
            kept = [answer(x) for x in (first, 0.5 * first, first)]  # an answer must outlive the next one
            got = [torch.cat([p.flatten() for p in parts]) for parts in kept]
            for i, j in ((0, 0), (1, 1), (2, 0)):
                yield same(f"graph, {what}, {method}, call {i + 1}", got[i], truth[j])
        recorded = posterior._whole.replayed + posterior._likelihood.replayed
        yield f"graph, {what}, recorded", recorded == (2 if device.type == "cuda" else 0), f"{recorded} recordings"

    class Looks(Classifier):
        def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
            found = super().__call__(params, points, labels)
            return found if float(found.detach().sum()) < 1e30 else found * 0.0

    class Draws(Classifier):
        def __call__(self, params: Tensor, points: Tensor, labels: Tensor) -> Tensor:
            return super().__call__(params, points, labels) + 0.0 * torch.rand((), device=params.device)

    for what, kind in (("looks at values", Looks), ("draws random numbers", Draws)):
        posterior = posterior_on(device)
        posterior.log_likelihood = kind(small_net())
        x, plain = starts(small_net(), 4, device), posterior_on(device)
        yield same(f"graph refused: it {what}", posterior.value_and_gradient(x)[1], plain.value_and_gradient(x)[1])
        yield f"graph refused: it {what}, not recorded", posterior._whole.replayed == 0, ""


@check
def samplers(device: torch.device) -> Iterator[Finding]:
    net = small_net()
    ends = []
    for place in ("cpu", device):
        posterior, params = posterior_on(place, F64), starts(net, 2, place, F64)
        _value, grad = posterior.value_and_gradient(params)
        momentum = starts(net, 2, place, F64).flip(1)
        ends.append(torch.cat(leapfrog(posterior.value_and_gradient, params, momentum, grad, 0.01, 10)[:2], 1))
    yield near("10 leapfrog steps, float64", ends[1], ends[0], EXACT)
    for record in EXACT_SAMPLERS:
        settings = ExactSettings(
            sampler=record.name, chains=2, warmup=20, samples=8, leapfrog_steps=3, max_tree_depth=4, levels=4, batch=4
        )

        def chain(graph: bool) -> Tensor:
            posterior = posterior_on(device)
            kernel = record.kernel(posterior, settings)  # noqa: B023
            with contextlib.nullcontext() if graph else without_graphs():
                generators = ChainGenerators.from_seeds(device, [1, 2], "check")
                noise = generators.normal(net.num_params)
                state = kernel.init(posterior.prior.draw(noise), generators)
                for _ in range(24):
                    state, _info = kernel.step(state, generators)
            return state.params.detach()

        first = chain(True)
        yield f"{record.name}, finite", bool(first.isfinite().all()), ""
        yield same(f"{record.name}, same bits twice", chain(True), first)
        yield same(f"{record.name}, with graphs and without", chain(False), first)


@check
def published_chains(device: torch.device) -> Iterator[Finding]:
    data, net = digits().to(device), small_net()
    index = select("random", data.train.labels.cpu(), 1, 10, generator=torch.Generator().manual_seed(0))
    coreset = build_coreset(data, index, method="random", seed=0)
    for record in KIM2022_SAMPLERS:
        for protocol, coresets in (("kim2022", [coreset]), ("kim2022-scaled", [coreset, coreset])):
            config = Kim2022Config(
                sampler=record.name, protocol=protocol, test_images=100, overrides={"iterations": 6, "burn_in": 2}
            )
            blocks = [
                next(iter(sample_kim2022(net, data, coresets, config, seeds=[0, 1], augment=AugmentConfig())))
                for _ in range(2)
            ]
            yield same(f"{protocol} {record.name}, same bits twice", blocks[0].probs, blocks[1].probs)
            yield f"{protocol} {record.name}, finite", bool(blocks[0].metrics["nll"].isfinite().all()), ""


@check
def resuming(device: torch.device) -> Iterator[Finding]:
    """Stopped and gone on with: the bits of an uninterrupted run."""
    data, net = digits().to(device), small_net()
    for name in DIVERGENCES.names():
        preset = dataclasses.replace(distill_preset("digits", name, 1), inner_steps=2, samples=3)
        divergence = make_divergence(name, preset, Classifier(net), AugmentConfig())
        window = ExpertWindow(net.init(1 + divergence.expert_epochs, make_generator(device, 0)))
        real = real_batches(data, 40) if divergence.needs_real else None
        begun = start(initial_coreset(data, 1, source="real", total_weight=None, seed=0), divergence)

        def learn(state: Any, steps: int) -> Any:
            loop = distill(state, divergence, lambda g: window, real, OuterConfig(lr_points=1.0), steps=steps, seed=0)  # noqa: B023
            return list(loop)[-1]

        with tempfile.TemporaryDirectory() as folder:
            save_state(learn(begun, 2), Path(folder) / "state.safetensors", "hash")
            again = learn(load_state(Path(folder) / "state.safetensors", "hash", divergence, device), 4)
        yield same(f"learning by {name}, resumed", again.coreset.points, learn(begun, 4).coreset.points)

    index = select("random", data.train.labels.cpu(), 1, 10, generator=torch.Generator().manual_seed(0))
    coreset = build_coreset(data, index, method="random", seed=0)
    settings = ExactSettings(chains=2, warmup=4, samples=6, leapfrog_steps=2)
    asked = [Inputs("test", data.test)]

    class Stop(Exception):
        pass

    def sample(file: Any = None, stop: int = 0) -> Tensor:
        def report(done: int, note: str) -> None:
            if stop and done >= stop:
                raise Stop

        (found,) = sample_exact(
            net, data, [coreset], ExactConfig(protocol="exact-scaled", settings=settings), seeds=[0], inputs=asked,
            file=file, checkpoint_seconds=0.0, config_hash="hash", report=report,
        )  # fmt: skip
        return found.probs["test"]

    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Stop):
            sample(lambda name: Path(folder) / name, stop=14)
        there = bool(list(Path(folder).iterdir()))
        again = sample(lambda name: Path(folder) / name)
    yield "exact chains left a checkpoint", there, ""
    yield same("exact chains, resumed", again, sample())

    few = dataclasses.replace(data, train=data.train.take(torch.arange(300, device=device)))
    config = ExpertConfig(lr=0.05, batch_size=64, augment=AugmentConfig())
    with tempfile.TemporaryDirectory() as folder:
        ends = []
        for name, stages in (("whole", (3,)), ("resumed", (1, 3))):
            store = TrajectoryStore.create(Path(folder) / name, net.num_params, store_meta(few, net, config, 0))
            for epochs in stages:
                list(train_experts(store, net, few, config, num_experts=2, epochs=epochs, seed=0, together=2))
            ends.append(torch.cat([store.snapshots(e, 0, 3) for e in range(2)]))
    yield same("experts, resumed", *ends)


@check
def selection(device: torch.device) -> Iterator[Finding]:
    g = torch.Generator().manual_seed(4)
    labels, features = torch.arange(200) % 10, torch.randn(200, 10, generator=g)
    for record in SELECTIONS:
        shown = (
            features.softmax(1) - torch.nn.functional.one_hot(labels, 10)
            if record.looks_at == "gradients"
            else features
        )
        found = [
            select(record.name, labels, 3, 10, features=shown.to(place), generator=torch.Generator().manual_seed(5))
            for place in ("cpu", device)
        ]
        yield same(f"selection {record.name}", found[1].indices.cpu(), found[0].indices)


@check
def metrics(device: torch.device) -> Iterator[Finding]:
    from evaluation.calibration import aurc, ece_classwise, ece_equal_mass, ood_auroc
    from evaluation.fidelity import fidelity

    g = torch.Generator().manual_seed(6)
    p, q = (torch.randn(2, 300, 10, generator=g, dtype=F64).softmax(-1) for _ in range(2))
    labels = torch.randint(10, (300,), generator=g)

    def every(place: torch.device | str) -> dict[str, Tensor]:
        a, b, y = p.to(place), q.to(place), labels.to(place)
        found = dict(compute(update(empty_sums((2,), device=place), a, y)))
        found |= {"ece_equal_mass": ece_equal_mass(a, y), "ece_classwise": ece_classwise(a, y), "aurc": aurc(a, y)}
        return {**found, "ood_auroc": ood_auroc(a, b), **fidelity(a, b)._asdict()}

    truth = every("cpu")
    for name, value in every(device).items():
        yield near(f"metric {name}", value, truth[name], EXACT)


@check
def commands(device: torch.device) -> Iterator[Finding]:
    """The command line, end to end and tiny."""
    from bpc_cli.main import main as bpc

    tiny = ["--dataset", "digits", "--device", str(device), "--width", "8"]
    with tempfile.TemporaryDirectory() as folder:
        experts, made = (
            ["--experts", f"{folder}/experts", "--num-experts", "2", "--max-start-epoch", "2"],
            f"{folder}/fkl",
        )
        learn = ["distill", *tiny, *experts, "--divergence", "fkl", "--ipc", "1", "--steps", "5", "--no-evaluate"]
        yield "distill", bpc([*learn, "--out", made]) == 0 and Path(made, "coreset.safetensors").exists(), ""
        for divergence in ("wasserstein", "rkl"):
            learn[learn.index("--divergence") + 1] = divergence
            yield f"distill {divergence}", bpc([*learn, "--out", f"{folder}/{divergence}"]) == 0, ""
        exact = ["--protocol", "exact-scaled", "--chains", "2", "--warmup", "10", "--samples", "10"]
        exact += ["--leapfrog-steps", "5", "--seeds", "1", "--test-images", "100"]
        if device.type == "cuda":  # minutes on a CPU
            exact += ["--reference", f"{folder}/reference", "--reference-warmup", "5", "--reference-samples", "8"]
        else:
            exact += ["--reference", "none"]
        evaluate = ["evaluate", "--coreset", made, *tiny, "--no-beside-random"]
        yield "evaluate exact-scaled", bpc([*evaluate, *exact, "--out", f"{folder}/exact"]) == 0, ""
        rows = (Path(folder) / "exact" / "rows.csv").read_text()
        yield "rows name the device", device_name(device) in rows, device_name(device)
        published = ["--iterations", "20", "--burn-in", "10", "--seeds", "2"]
        for sampler in ("hmc", "asghmc"):
            done = bpc([*evaluate, *published, "--sampler", sampler, "--out", f"{folder}/{sampler}"]) == 0
            yield f"evaluate kim2022 {sampler}", done, ""
        one = ["--experts", f"{folder}/one", "--num-experts", "1", "--epochs", "2"]
        chosen = ["select", *tiny, *one, "--method", "herding", "--ipc", "1"]
        yield "select", bpc([*chosen, "--out", f"{folder}/herding"]) == 0, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--only", nargs="*", default=[], help="names of checks")
    args = parser.parse_args()
    device = resolve_device(args.device)
    keep_freed_memory()
    repeatable_kernels()
    results, began = [], time.monotonic()
    for function in CHECKS:
        if args.only and function.__name__ not in args.only:
            continue
        started, findings = time.monotonic(), []
        try:
            for label, ok, note in function(device):
                findings.append({"what": label, "ok": bool(ok), "note": note})
        except Exception as error:  # whatever breaks one check, the others are wanted
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            note = f"{type(error).__name__}: {error} ({where})"
            findings.append({"what": f"{function.__name__} ended", "ok": False, "note": note})
            traceback.print_exc()
        seconds = time.monotonic() - started
        for found in findings:
            print(f"{'PASS' if found['ok'] else 'FAIL'}  {found['what']}  {found['note']}".rstrip(), flush=True)
        print(f"      {function.__name__}: {seconds:.1f} s", flush=True)
        results.append({"check": function.__name__, "seconds": seconds, "findings": findings})
    every = [found for result in results for found in result["findings"]]
    failed = [found for found in every if not found["ok"]]
    args.out.mkdir(parents=True, exist_ok=True)
    about = {"device": device_name(device), "versions": versions(), "seconds": time.monotonic() - began}
    (args.out / "gpu_check.json").write_text(json.dumps({**about, "checks": results}, indent=1))
    print(f"{len(every) - len(failed)} passed, {len(failed)} failed in {about['seconds']:.0f} s on {about['device']}")
    for found in failed:
        print(f"FAIL  {found['what']}  {found['note']}")
    return min(len(failed), 100)


if __name__ == "__main__":
    sys.exit(main())
