"""A user's own network: ``file.py:function``, run once, checked, and named by what it is.

The file is a program of the user's and is executed. What it builds is a name for experts, references and runs, so the name
holds a hash of the file's bytes, of the module structure that was built, and of the source of every layer class that does not
come with
torch: an edited network is another network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bpc.errors import ConfigError
from bpc.models.module import ModuleNetwork
from bpc.models.network import Network

__all__ = ["load_own_network"]

# layers that draw random numbers while they are in training mode, and the attribute that says how often
RANDOM_LAYERS = (nn.modules.dropout._DropoutNd, nn.RReLU)


def load_own_network(spec: str, image_shape: tuple[int, int, int], num_classes: int) -> Network:
    """Execute ``path/to/file.py``, call its ``function(image_shape, num_classes)`` and check what comes back.

    Args:
        spec: ``path/to/file.py:function``.
        image_shape: (c, h, w).
        num_classes: y.

    Raises:
        ConfigError: no such file or function; the file or the function fails; what it returns is not a network, maps images to
            other than logits, or is no pure function of its parameters and one image. One line with file, line and cause.
    """
    file, _, function = spec.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"--model {spec}: no such file {path}.")
    build = getattr(_execute(path, spec), function, None)
    if not callable(build):
        raise ConfigError(f"--model {spec}: {path} has no function {function!r}.")
    made = _guarded(lambda: build(image_shape, num_classes), path, f"{function}({image_shape}, {num_classes})")
    stem = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem).strip("_") or "own"
    if isinstance(made, nn.Module):
        name = f"{stem}-{function}-{_digest(path, made)}"
        _refuse_random_layers(made, spec)

        def rebuild() -> nn.Module:
            module: nn.Module = build(image_shape, num_classes)
            return module

        network: Network = _guarded(
            lambda: ModuleNetwork(rebuild, image_shape, num_classes, name), path, "the network it built"
        )
        _guarded(lambda: _check_pure(network, spec), path, "the network it built")
        return network
    if isinstance(made, Network):
        _guarded(lambda: setattr(made, "name", f"{stem}-{function}-{_digest(path, made)}"), path, "naming its network")
        _guarded(lambda: _check_pure(made, spec), path, "the network it built")
        return made
    raise ConfigError(f"--model {spec} returned {type(made).__name__}; expected an nn.Module or a bpc.models.Network.")


def _execute(path: Path, spec: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"_bpc_own_{path.stem}", path)
    if found is None or found.loader is None:
        raise ConfigError(f"--model {spec}: {path} is not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(found)
    loader = found.loader
    sys.modules[found.name] = module  # dataclasses look themselves up there
    sys.path.append(str(path.resolve().parent))  # what lies beside the file can be imported, as in a script
    try:
        _guarded(lambda: loader.exec_module(module), path, "the file")
    finally:
        sys.path.pop()
    return module


def _guarded(work: Callable[[], Any], path: Path, what: str) -> Any:
    """Call the user's code; whatever it raises is one line that names file, line and cause. Ctrl-C passes."""
    try:
        return work()
    except KeyboardInterrupt:
        raise
    except ConfigError as error:
        raise error if "--model" in str(error) else ConfigError(f"--model {path}: {error}") from error
    except BaseException as error:  # SystemExit as well: it would end this program with the user's exit code
        here = str(path.resolve())
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if str(Path(frame.filename).resolve()) == here]
        number = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = f"{path}, line {number}" if number else str(path)
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        reason = f"{type(error).__name__}: {' '.join(text.split())}" if text else type(error).__name__
        raise ConfigError(f"--model {place}: {what} failed ({reason[:300]}).") from error


def _digest(path: Path, made: object) -> str:
    """8 hex digits of the file, the structure that was built, and the source of every class in it that is not torch's."""
    found = hashlib.sha256(path.read_bytes())
    parts = list(made.modules()) if isinstance(made, nn.Module) else [made]
    text = repr(made) if isinstance(made, nn.Module) else type(made).__qualname__
    found.update(re.sub(r" at 0x[0-9a-f]+", "", text).encode())  # an address is another one in every process
    if isinstance(made, nn.Module):
        found.update(str([(name, tuple(p.shape)) for name, p in made.named_parameters()]).encode())
    for kind in dict.fromkeys(type(part) for part in parts):
        if not kind.__module__.startswith("torch."):
            try:
                found.update(inspect.getsource(inspect.getmodule(kind) or kind).encode())
            except (OSError, TypeError):  # made without a file; its own file is hashed above
                found.update(kind.__qualname__.encode())
    return found.hexdigest()[:8]


def _refuse_random_layers(module: nn.Module, spec: str) -> None:
    for name, layer in module.named_modules():
        chance = getattr(layer, "p", 1.0) if isinstance(layer, RANDOM_LAYERS) else getattr(layer, "dropout", 0.0)
        if isinstance(layer, (*RANDOM_LAYERS, nn.RNNBase, nn.MultiheadAttention)) and chance:
            raise ConfigError(
                f"--model {spec}: layer {name or type(layer).__name__} ({type(layer).__name__}) draws random numbers; a network "
                "here must be a pure function of its parameters and an image. Remove it."
            )


@torch.no_grad()
def _check_pure(network: Network, spec: str) -> None:
    """The same parameters and images give the same logits, whatever was asked before and whichever images stand beside."""
    generator = torch.Generator().manual_seed(0)
    params = network.init(1, generator)
    images = torch.randn(4, *network.image_shape, generator=generator)
    with torch.random.fork_rng(devices=[]):
        first: Tensor = network(params, images)
        if tuple(first.shape) != (1, 4, network.num_classes):
            raise ConfigError(
                f"--model {spec} maps 4 images to logits {tuple(first.shape[1:])}; expected (4, {network.num_classes})."
            )
        network(params + 0.1, images.flip(0))
        again = [network(params, images) for _ in range(3)]
        apart = torch.cat([network(params, half) for half in images.split(2)], dim=1)
    if not all(torch.equal(first, other) for other in again):
        raise ConfigError(
            f"--model {spec}: the same parameters and images gave different logits (dropout, or a layer that keeps state); a "
            "network here must be a pure function of its parameters and an image."
        )
    if not torch.allclose(first, apart, rtol=1e-3, atol=1e-3 * float(first.abs().max().clamp(min=1e-6))):
        raise ConfigError(
            f"--model {spec}: an image's logits depend on the images beside it (a batch norm?); the likelihood of a point would "
            "then not be its own. Use instance, group or layer norm."
        )
