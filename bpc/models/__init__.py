"""Networks as pure functions of a flat parameter vector."""

from __future__ import annotations

from bpc.errors import unknown_name
from bpc.models.convnet import ConvNet, ConvNetConfig
from bpc.models.module import ModuleNetwork
from bpc.models.network import HasLayout, Network, ParameterBlock
from bpc.models.own import load_own_network

__all__ = [
    "ConvNet",
    "ConvNetConfig",
    "HasLayout",
    "ModuleNetwork",
    "Network",
    "ParameterBlock",
    "build_network",
]


def build_network(
    spec: str, image_shape: tuple[int, int, int], num_classes: int, config: ConvNetConfig | None = None
) -> Network:
    """The network named by `spec`: ``convnet``, or ``path/to/file.py:function`` for your own.

    Your own file is executed; its function is called as ``function(image_shape, num_classes)`` and returns an `nn.Module` or a
    `Network`.

    Raises:
        ConfigError: unknown name, missing file or function, a file that fails, or something that is not a network.
    """
    if spec == "convnet":
        return ConvNet(config or ConvNetConfig(), image_shape, num_classes)
    if ":" not in spec:
        raise unknown_name("model", spec, ["convnet"], hint="Your own: --model path/to/file.py:function.")
    return load_own_network(spec, image_shape, num_classes)
