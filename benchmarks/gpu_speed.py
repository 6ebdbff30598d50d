"""What takes how long on a GPU, and what would be faster: leapfrogs by kernels and by graphs, learning, experts, convolutions.

    python benchmarks/gpu_speed.py --device cuda --out runs/gpu

Images are noise of the right shape, experts are initial parameters: the cost depends on neither. Writes ``gpu_speed.csv`` and
``gpu_speed.md``, and with ``--profile`` the kernels that the time goes to. ``--device cpu --tiny`` tries the script itself.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bpc.augment import AugmentConfig
from bpc.budget import exact_pairs_at_once, pairs_at_once
from bpc.data import Dataset, Split, load_dataset
from bpc.distill import OuterConfig, distill, initial_coreset, real_batches, start
from bpc.divergences import DIVERGENCES, ExpertWindow
from bpc.estimate import synchronise
from bpc.graphs import without_graphs
from bpc.likelihood import Classifier
from bpc.models import ConvNet, ConvNetConfig
from bpc.pieces import pieces
from bpc.posterior import Posterior
from bpc.presets import distill_preset, make_divergence
from bpc.runs import device_name, resolve_device, versions
from bpc.runtime import keep_freed_memory, repeatable_kernels
from bpc.samplers.hmc import leapfrog
from bpc.seeding import make_generator
from bpc.weight_prior import isotropic
from expert_trajectories import ExpertConfig
from expert_trajectories.train import _epoch

Row = dict[str, Any]
Conv = Callable[[Tensor, Tensor, int], Tensor]
LEAPFROGS = 20


class Clock:
    """Measures, and stops beginning new measurements when its time is up."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.ends, self.rows = device, time.monotonic() + seconds, list[Row]()

    def __call__(
        self, area: str, what: str, variant: str, call: Callable[[], Any], *, per: float = 1.0, unit: str = "ms",
        repeats: int = 5, note: str = "",
    ) -> None:  # fmt: skip
        """Median seconds of `call` over `per`, after one or two warm-ups, as a row."""
        value = float("nan")
        if time.monotonic() > self.ends:
            note = "no time left"
        else:
            try:
                value = self.median(call, repeats) / per * (1e3 if unit.startswith("ms") else 1.0)
            except Exception as error:  # a variant that fails is a row
                note = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
        row = {"area": area, "what": what, "variant": variant, "value": value, "unit": unit, "note": note}
        self.rows.append(row)
        print(f"{area:10s} {what:45s} {variant:28s} {value:10.3f} {unit}  {note}".rstrip(), flush=True)

    def median(self, call: Callable[[], Any], repeats: int) -> float:
        """Seconds of a call."""
        began = time.monotonic()
        for _ in range(2):
            call()
            synchronise(self.device)
            if time.monotonic() - began > 1.5:
                break
        times, began = [], time.monotonic()
        for _ in range(repeats):
            started = time.perf_counter()
            call()
            synchronise(self.device)
            times.append(time.perf_counter() - started)
            if time.monotonic() - began > 2.0:
                break
        return statistics.median(times)


@contextlib.contextmanager
def arithmetic(*, tf32: bool = False, deterministic: bool = True, benchmark: bool = False) -> Iterator[None]:
    """How torch computes, for a measurement; afterwards as the product sets it."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
    try:
        yield
    finally:
        repeatable_kernels()


def under(options: dict[str, bool], call: Callable[[], Any]) -> Callable[[], Any]:
    def changed() -> Any:
        with arithmetic(**options):
            return call()

    return changed


def noise_data(device: torch.device, images: int) -> Dataset:
    """Noise of CIFAR-10's shape."""
    g = torch.Generator().manual_seed(0)
    n = images // 10 * 10
    split = Split(
        images=torch.randint(256, (n, 3, 32, 32), generator=g, dtype=torch.uint8), labels=torch.arange(n) % 10
    )
    return Dataset(
        name="noise", train=split, test=split.take(torch.arange(10)), mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3),
        class_names=tuple(str(y) for y in range(10)),
    ).to(device)  # fmt: skip


def cifar_net(width: int) -> ConvNet:
    return ConvNet(ConvNetConfig(width=width), (3, 32, 32), 10)


# Sampling -----------------------------------------------------------------------------------------------------------------


def sampling(clock: Clock, tiny: bool) -> None:
    device = clock.device
    digits = load_dataset("digits").to(device)
    every = digits.normalise(digits.train.images)
    g = torch.Generator().manual_seed(0)
    cases = []
    for width in (8, 32):
        net = ConvNet(ConvNetConfig(width=width, depth=2), (1, 8, 8), 10)
        for m, chains in ((10, 20), (100, 20), (len(every), 8)):
            cases.append((f"digits, width {width}", net, every[:m], digits.train.labels[:m], chains))
    for width in (32, 128):
        points = torch.randn(100, 3, 32, 32, generator=g).to(device)
        cases.append((f"CIFAR-10, width {width}", cifar_net(width), points, torch.arange(100, device=device) % 10, 4))
    for name, net, points, labels, chains in cases[: 2 if tiny else None]:
        m = len(labels)
        params = 0.05 * torch.randn(chains, net.num_params, generator=g).to(device)
        at_once = exact_pairs_at_once(net, device)
        count = sum(1 for _ in pieces(chains, m, at_once))
        for pieces_words, limit in ((f"{count} pieces", at_once), ("one piece", 0))[: 2 if count > 1 else 1]:
            posterior = Posterior(
                Classifier(net), points, labels, torch.ones(m, device=device), prior=isotropic(0.1),
                points_at_once=limit,
            )  # fmt: skip
            _, grad = posterior.value_and_gradient(params)
            momentum = torch.zeros_like(params)

            def steps(posterior=posterior, params=params, momentum=momentum, grad=grad) -> None:
                leapfrog(posterior.value_and_gradient, params, momentum, grad, 1e-4, LEAPFROGS)

            def eagerly(steps=steps) -> None:
                with without_graphs():
                    steps()

            what = f"{name}, {m} points, {chains} chains"
            recorded = posterior._whole.replayed
            clock("leapfrog", what, f"kernels, {pieces_words}", eagerly, per=LEAPFROGS)
            clock("leapfrog", what, f"graph, {pieces_words}", steps, per=LEAPFROGS, note=f"{recorded} recorded")


# Learning -----------------------------------------------------------------------------------------------------------------


def learning_step(name: str, width: int, data: Dataset, device: torch.device, tiny: bool) -> Callable[[], Any]:
    """One outer step at ipc 10 under the published settings."""
    net = cifar_net(width)
    preset = distill_preset("kim2022", name, 10)
    if tiny:
        preset = dataclasses.replace(preset, inner_steps=2, samples=2, real_batch=20)
    at_once = pairs_at_once(net, device, second_order=DIVERGENCES.get(name).second_order)
    divergence = make_divergence(name, preset, Classifier(net), AugmentConfig(), at_once=at_once)
    window = ExpertWindow(net.init(divergence.expert_epochs + 1, make_generator(device, 0)))
    real = real_batches(data, preset.real_batch)
    begun = start(initial_coreset(data, 10, source="real", total_weight=None, seed=0), divergence)
    return lambda: next(
        distill(begun, divergence, lambda g: window, real, OuterConfig(lr_points=1e-3), steps=1, seed=0)
    )


def learning(clock: Clock, tiny: bool) -> None:
    data = noise_data(clock.device, 1000)
    for width in (8,) if tiny else (128, 32):
        for name in ("fkl", "wasserstein", "rkl"):
            step = learning_step(name, width, data, clock.device, tiny)
            clock("learning", f"{name}, width {width}, ipc 10, outer step", "float32", step, repeats=3)
            if width == 128:
                clock(
                    "learning",
                    f"{name}, width {width}, ipc 10, outer step",
                    "TF32",
                    under({"tf32": True}, step),
                    repeats=3,
                )
    if clock.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(clock.device) / 2**30
        print(f"peak memory so far {peak:.1f} GiB", flush=True)


def experts(clock: Clock, tiny: bool) -> None:
    images = 40 if tiny else 2560  # ten batches
    data = noise_data(clock.device, images)
    config = ExpertConfig(augment=AugmentConfig())
    for width in (8,) if tiny else (128, 32):
        net = cifar_net(width)
        for k in (1, 10):
            params = net.init(k, make_generator(clock.device, 0))

            def epoch(net=net, k=k, params=params) -> None:
                _epoch(net, params, data, config, 0, list(range(k)), 1, pairs_at_once(net, clock.device))

            what, per = f"width {width}, {k} together, 50,000 images", images / 50_000
            clock("experts", what, "float32", epoch, per=per, unit="s per epoch of all", repeats=3)
            if width == 128:
                tf32 = under({"tf32": True}, epoch)
                clock("experts", what, "TF32", tf32, per=per, unit="s per epoch of all", repeats=3)
                free = under({"deterministic": False, "benchmark": True}, epoch)
                clock("experts", what, "float32, cuDNN benchmark", free, per=per, unit="s per epoch of all", repeats=2)


# Convolutions of k networks side by side: (n, k c, h, w), (k d, c, 3, 3) -> (n, k d, h, w) ------------------------------------


def grouped(x: Tensor, w: Tensor, k: int) -> Tensor:
    return F.conv2d(x, w, padding=1, groups=k)


def one_by_one(x: Tensor, w: Tensor, k: int) -> Tensor:
    parts = zip(x.chunk(k, 1), w.chunk(k, 0), strict=True)
    return torch.cat([F.conv2d(xi, wi, padding=1) for xi, wi in parts], 1)


def unfolded(x: Tensor, w: Tensor, k: int) -> Tensor:
    (n, _, h, width), (kd, c) = x.shape, w.shape[:2]
    columns = F.unfold(x, 3, padding=1).view(n, k, c * 9, h * width)
    return torch.matmul(w.view(k, kd // k, c * 9), columns).reshape(n, kd, h, width)


def shifted(x: Tensor, w: Tensor, k: int) -> Tensor:
    found: Tensor = _Shifted.apply(x, w, k)
    return found


class _Shifted(torch.autograd.Function):
    """Nine batched matrix products over rows (pixel, channels) of padded images; a shift of pixels is an offset of rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, k: int) -> Tensor:
        n, (h, width) = len(x), x.shape[-2:]
        rows = _rows(x, k)
        nine = w.view(k, -1, *w.shape[1:]).permute(3, 4, 0, 2, 1).contiguous()  # (3, 3, k, c, d)
        ctx.save_for_backward(rows, nine)
        ctx.shape = (n, k, h, width)
        return _images(_correlate(rows, nine, n * (h + 2) * (width + 2), width + 2), *ctx.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, nine = ctx.saved_tensors
        n, k, h, width = ctx.shape
        size, stride = n * (h + 2) * (width + 2), width + 2
        along = _rows(grads[0], k)
        dx = _images(_correlate(along, nine.flip(0, 1).transpose(-1, -2), size, stride), *ctx.shape)
        middle = along[:, stride + 1 : stride + 1 + size]
        dw = torch.stack(
            [rows[:, i * stride + j :][:, :size].transpose(1, 2) @ middle for i in range(3) for j in range(3)]
        )  # (9, k, c, d)
        return dx, dw.permute(1, 3, 2, 0).reshape(-1, dw.shape[2], 3, 3), None


def _rows(x: Tensor, k: int) -> Tensor:
    """(n, k c, h, w) -> (k, margin + n (h + 2) (w + 2) + margin, c), zero outside the images; margin = w + 3."""
    n, _, h, w = x.shape
    padded = F.pad(x.view(n, k, -1, h, w), (1, 1, 1, 1)).permute(1, 0, 3, 4, 2).reshape(k, n * (h + 2) * (w + 2), -1)
    return F.pad(padded, (0, 0, w + 3, w + 3))


def _correlate(rows: Tensor, nine: Tensor, size: int, stride: int) -> Tensor:
    total = rows[:, :size] @ nine[0, 0]
    for i in range(3):
        for j in range(3):
            if i or j:
                total.baddbmm_(rows[:, i * stride + j :][:, :size], nine[i, j])
    return total


def _images(rows: Tensor, n: int, k: int, h: int, w: int) -> Tensor:
    inner = rows.view(k, n, h + 2, w + 2, -1)[:, :, 1:-1, 1:-1]
    return inner.permute(1, 0, 4, 2, 3).reshape(n, -1, h, w)


def convolutions(clock: Clock, tiny: bool) -> None:
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 6, 4, 6, generator=g), torch.randn(8, 3, 3, 3, generator=g)
    leaves = [t.double().requires_grad_() for t in (x, w)]

    def answers(conv: Conv) -> list[Tensor]:
        y = conv(*leaves, 2)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]

    truth = answers(grouped)
    for other in (one_by_one, unfolded, shifted):  # a fast wrong answer is no variant
        got = answers(other)
        for a, b in zip(got, truth, strict=True):
            torch.testing.assert_close(a, b)
    variants: list[tuple[str, Conv, dict[str, bool], torch.dtype]] = [
        ("grouped", grouped, {}, torch.float32),
        ("one by one", one_by_one, {}, torch.float32),
        ("unfold and bmm", unfolded, {}, torch.float32),
        ("nine shifted bmm", shifted, {}, torch.float32),
        ("grouped, any algorithm", grouped, {"deterministic": False, "benchmark": True}, torch.float32),
        ("grouped, TF32", grouped, {"tf32": True}, torch.float32),
        ("one by one, TF32", one_by_one, {"tf32": True}, torch.float32),
        ("nine shifted bmm, TF32", shifted, {"tf32": True}, torch.float32),
        ("grouped, bfloat16", grouped, {}, torch.bfloat16),
        ("nine shifted bmm, bfloat16", shifted, {}, torch.bfloat16),
        ("grouped, channels last", grouped, {}, torch.float32),
    ]
    cases = [(256, 10, 128, 16), (100, 20, 32, 16), (100, 60, 128, 16)] if not tiny else [(2, 2, 4, 4)]
    for n, k, channels, side in cases:
        for name, conv, options, dtype in variants:
            x, w = (torch.randn(s, device=clock.device, dtype=dtype).requires_grad_() for s in
                    ((n, k * channels, side, side), (k * channels, channels, 3, 3)))  # fmt: skip
            if "channels last" in name:
                x, w = (t.detach().to(memory_format=torch.channels_last).requires_grad_() for t in (x, w))
            along = torch.randn_like(x)

            def both(conv=conv, x=x, w=w, along=along, k=k) -> None:
                torch.autograd.grad(conv(x, w, k), (x, w), along)

            what = f"{k} networks, {n} images, {channels} channels, {side}x{side}"
            flops = 3 * 2 * n * k * channels * channels * 9 * side * side
            before = len(clock.rows)
            clock("convolution", what, name, under(options, both), repeats=3)
            row = clock.rows[before]
            row["note"] = row["note"] or f"{flops / row['value'] * 1e-9:.1f} TFLOP/s"
            del x, w, along


def limits(clock: Clock, tiny: bool) -> None:
    """What the card can do."""
    size = 256 if tiny else 8192
    a, b = (torch.randn(size, size, device=clock.device) for _ in range(2))
    for name, options in (("float32", {}), ("TF32", {"tf32": True})):
        clock("limits", f"matrix product of {size}", name, under(options, lambda: a @ b))
        row = clock.rows[-1]
        row["note"] = row["note"] or f"{2 * size**3 / row['value'] * 1e-9:.0f} TFLOP/s"
    clock("limits", f"copy of {a.numel() * 4 / 2**20:.0f} MiB", "device to device", lambda: b.copy_(a))
    tiny_one = torch.zeros(1, device=clock.device)
    clock("limits", "1,000 smallest kernels", "launches", lambda: [tiny_one.add_(1.0) for _ in range(1000)])


def profiled(clock: Clock, path: Path, tiny: bool) -> None:
    """The kernels that a few calls spend their time in."""
    from torch.profiler import ProfilerActivity, profile

    data = noise_data(clock.device, 1000)
    width, lines = 8 if tiny else 128, []
    net = cifar_net(width)
    params = net.init(10, make_generator(clock.device, 0))
    config = ExpertConfig(augment=AugmentConfig())
    few = dataclasses.replace(data, train=data.train.take(torch.arange(250, device=clock.device)))
    calls = {
        f"experts, 10 together, width {width}, one batch of 250": lambda: _epoch(
            net, params, few, config, 0, list(range(10)), 1, pairs_at_once(net, clock.device)
        ),
        **{
            f"{name}, width {width}, an outer step": learning_step(name, width, data, clock.device, tiny)
            for name in ("fkl", "wasserstein", "rkl")
        },
    }
    key = "self_cpu_time_total" if clock.device.type == "cpu" else "self_device_time_total"
    for name, call in calls.items():
        if time.monotonic() > clock.ends:
            lines.append(f"{name}: no time left")
            continue
        call()
        synchronise(clock.device)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            call()
            synchronise(clock.device)
        lines.append(f"== {name}\n{found.key_averages().table(sort_by=key, row_limit=14, max_name_column_width=70)}")
    path.write_text("\n".join(lines))


AREAS = {"limits": limits, "leapfrog": sampling, "learning": learning, "experts": experts, "convolution": convolutions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--seconds", type=float, default=90.0, help="no measurement begins later")
    parser.add_argument("--only", nargs="*", default=list(AREAS), choices=list(AREAS))
    parser.add_argument("--profile", action="store_true", help="write gpu_profile.txt as well")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU can do: to try the script")
    args = parser.parse_args()
    device = resolve_device(args.device)
    keep_freed_memory()
    repeatable_kernels()
    args.out.mkdir(parents=True, exist_ok=True)
    clock = Clock(device, args.seconds)
    for name in args.only:
        try:
            AREAS[name](clock, args.tiny)
        except Exception as error:  # the other areas are wanted
            print(f"{name} broke off: {type(error).__name__}: {error}", flush=True)
        _write(clock, args, device)
    if args.profile:
        profiled(clock, args.out / "gpu_profile.txt", args.tiny)
    print(f"Written to {args.out}/gpu_speed.csv and .md")


def _write(clock: Clock, args: argparse.Namespace, device: torch.device) -> None:
    table = pd.DataFrame(clock.rows)
    table.to_csv(args.out / "gpu_speed.csv", index=False)
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = ["| area | what | variant | value | unit | note |", "| :-- | :-- | :-- | --: | :-- | :-- |"]
    lines += [
        f"| {r['area']} | {r['what']} | {r['variant']} | {r['value']:.3f} | {r['unit']} | {r['note']} |"
        for r in clock.rows
    ]
    tiny = " Tiny sizes: not the measured table." if args.tiny else ""
    (args.out / "gpu_speed.md").write_text(
        f"# Speed on {device_name(device)}\n\n{found}.{tiny} Float32 is full float32 (no TF32) with deterministic cuDNN "
        "kernels, as the product computes, where a variant does not say otherwise. Medians after one or two warm-ups. Made by "
        "`python benchmarks/gpu_speed.py`.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
