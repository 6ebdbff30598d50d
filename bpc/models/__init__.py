"""Networks as pure functions of a flat parameter vector."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import nn

from bpc.errors import ConfigError, unknown_name
from bpc.models.convnet import ConvNet, ConvNetConfig
from bpc.models.module import ModuleNetwork
from bpc.models.network import Network

__all__ = ["ConvNet", "ConvNetConfig", "ModuleNetwork", "Network", "build_network"]


def build_network(
    spec: str, image_shape: tuple[int, int, int], num_classes: int, config: ConvNetConfig | None = None
) -> Network:
    """The network named by `spec`: ``convnet``, or ``path/to/file.py:function`` for your own.

    The function is called as ``function(image_shape, num_classes)`` and returns an `nn.Module` or a `Network`.

    Raises:
        ConfigError: unknown name, missing file or function, or something that is not a network.
    """
    if spec == "convnet":
        return ConvNet(config or ConvNetConfig(), image_shape, num_classes)
    file, separator, function = spec.rpartition(":")
    if not separator:
        raise unknown_name("model", spec, ["convnet"], hint="Your own: --model path/to/file.py:function.")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"--model {spec}: no such file {path}.")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"--model {spec}: {path} is not a Python file.")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    build = getattr(module, function, None)
    if not callable(build):
        raise ConfigError(f"--model {spec}: {path} has no function {function!r}.")
    made = build(image_shape, num_classes)
    if isinstance(made, nn.Module):
        return ModuleNetwork(
            lambda: build(image_shape, num_classes), image_shape, num_classes, f"{path.stem}-{function}"
        )
    if isinstance(made, Network):
        return made
    raise ConfigError(f"--model {spec} returned {type(made).__name__}; expected an nn.Module or a bpc.models.Network.")
