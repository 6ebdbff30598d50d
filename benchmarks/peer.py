"""Seconds and peak memory of one outer iteration of the authors' public code, run as it is from a clone of it.

    git clone https://github.com/balhaekim/BPC-Divergences peer
    python benchmarks/peer.py --peer peer --data-root DIR --divergence fkl --ipc 10

Their ``train.py`` runs unchanged, in a process and a temporary folder of its own, with its own network, augmentation, optimiser
and iteration. Replaced: the dataset (CIFAR-10 from the data root, no torchvision needed), the expert buffer (random
initial weights: the cost does not depend on where the experts are), the evaluation and the picture (left out); without a GPU,
``Tensor.cuda`` leaves a tensor where it is. S is Table 2's, as in benchmarks/jobs.py. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import runpy
import subprocess
import sys
import tempfile
import time
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bpc.data import Dataset, load_dataset
from bpc.divergences import DIVERGENCES
from bpc.estimate import synchronise
from bpc.presets import distill_preset
from bpc.runs import device_name, peak_memory_bytes, resolve_device, versions
from bpc.runtime import keep_freed_memory


class _Images:
    """The training split as their loop over it expects: pairs of a normalised image (c, h, w) and an integer."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.train)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if i >= len(self):
            raise IndexError(i)
        return self.data.normalise(self.data.train.images[i : i + 1])[0], int(self.data.train.labels[i])


def _stand_in(name: str, **members: Any) -> None:
    """Make `name` importable where it is not installed; `members` is what their code takes from it."""
    try:
        importlib.import_module(name)
    except ImportError:
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def inside(args: argparse.Namespace) -> None:
    """The measured process; its working folder is a temporary one."""
    device = resolve_device("auto")
    if args.keep_freed_memory:
        keep_freed_memory()
    _stand_in("torchvision", datasets=types.SimpleNamespace(), transforms=types.SimpleNamespace())
    _stand_in("torchvision.utils", save_image=_nothing)
    _stand_in("absl", logging=types.SimpleNamespace(get_absl_handler=logging.NullHandler))
    _stand_in("scipy.ndimage.interpolation", rotate=_nothing)
    _stand_in("tqdm", tqdm=lambda items: items)
    sys.path.insert(0, str(args.peer))
    utils: Any = importlib.import_module("utils")
    evaluation: Any = importlib.import_module("evaluation")
    for module in (utils, evaluation):
        if Path(str(module.__file__)).resolve().parent != args.peer:
            sys.exit(f"{module.__name__} was imported from {module.__file__} and not from {args.peer}.")
    sys.modules["torchvision.utils"].save_image = _nothing  # type: ignore[attr-defined]
    if device.type == "cpu":
        torch.Tensor.cuda = lambda self, *a, **k: self  # type: ignore[method-assign]

    data = load_dataset("cifar10", data_root=args.data_root)
    classes = {i: i for i in range(data.num_classes)}
    found = (3, (32, 32), 10, data.class_names, data.mean, data.std, _Images(data), None, None, None, classes, classes)
    utils.get_dataset = lambda *a, **k: found
    evaluation.evaluate_bpc = lambda *a, **k: (0.0, 0.0)
    if args.width:
        setting = utils.get_default_convnet_setting
        utils.get_default_convnet_setting = lambda: (args.width, *setting()[1:])

    build = utils.get_network
    began: list[float] = []
    before: list[int] = []
    preset = distill_preset("kim2022", args.divergence, args.ipc)
    expert = [[p.detach().cpu() for p in build("ConvNet", 3, 10, (32, 32), dist=False).parameters()] for _ in range(2)]
    buffer = Path("buffers/CIFAR10/ConvNet")
    buffer.mkdir(parents=True)
    torch.save([[expert[i % 2] for i in range(preset.max_start_epoch + 3)]], buffer / "replay_buffer_0.pt")

    def clocked(*a: Any, **k: Any) -> Any:
        if k.get("dist") is False:  # the first thing that an iteration does; the evaluation's call has no `dist`
            synchronise(device)
            before.append(peak_memory_bytes(device))
            began.append(time.perf_counter())
        return build(*a, **k)

    utils.get_network = clocked
    sys.argv = ["train.py", "--divergence", args.divergence, "--ipc", str(args.ipc), "--Iteration", str(args.steps)]
    sys.argv += ["--eval_it", str(args.steps + 1), "--num_eval", "1", "--num_epsilons", str(preset.samples)]
    sys.argv += ["--lr_img", "1e-3"]  # as in benchmarks/jobs.py: between made-up experts a real step would diverge
    with contextlib.redirect_stdout(sys.stderr):
        runpy.run_path(str(args.peer / "train.py"), run_name="__main__")  # does iterations 0 to `steps`; 0 is a warm-up
    synchronise(device)
    began.append(time.perf_counter())
    if len(began) != args.steps + 2:
        sys.exit(
            f"Expected {args.steps + 1} iterations of train.py and saw {len(began) - 1}; is this another version of it?"
        )
    seconds = sorted(b - a for a, b in pairwise(began[1:]))
    result = {
        "code": "published",
        "divergence": args.divergence,
        "ipc": args.ipc,
        "width": args.width or 128,
        "seconds": seconds[len(seconds) // 2],
        "seconds_min": seconds[0],
        "seconds_max": seconds[-1],
        "iterations": len(seconds),
        "peak_bytes": peak_memory_bytes(device),
        "peak_bytes_loading": before[0],  # before the first iteration: imports and dataset
        "keep_freed_memory": args.keep_freed_memory,
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "torch": versions()["torch"],
    }
    print(json.dumps(result))


def _absolute(text: str) -> Path:
    return Path(text).resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=_absolute, required=True, help="a clone of the authors' repository")
    parser.add_argument("--data-root", type=_absolute)
    parser.add_argument("--divergence", choices=DIVERGENCES.names(), required=True)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--width", type=int, help="of their ConvNet, to try the script; theirs is 128")
    parser.add_argument("--steps", type=int, default=2, help="timed, after one warm-up")
    parser.add_argument("--keep-freed-memory", action="store_true", help="with this project's setting of the allocator")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        inside(args)
        return
    if not (args.peer / "train.py").is_file():
        sys.exit(
            f"{args.peer} has no train.py; clone https://github.com/balhaekim/BPC-Divergences and name its folder."
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--inside", *sys.argv[1:]]
        command += ["--peer", str(args.peer)] + (["--data-root", str(args.data_root)] if args.data_root else [])
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit("The authors' train.py did not run:\n" + "\n".join(done.stderr.splitlines()[-15:]))
    print(done.stdout.strip())


if __name__ == "__main__":
    main()
