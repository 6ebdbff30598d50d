"""The ConvNet against torch's own modules, and the k-batched layouts against one network at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bpc.errors import ConfigError
from bpc.models import ConvNet, ConvNetConfig, ModuleNetwork, Network, build_network
from bpc.models.fused import pool2x2


def sequential(config: ConvNetConfig, shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """The same architecture from torch's modules."""
    layers: list[nn.Module] = []
    channels, h, w = shape
    for _ in range(config.depth):
        layers.append(nn.Conv2d(channels, config.width, 3, padding=1))
        if config.norm != "none":
            groups = config.width if config.norm == "instance" else 4
            layers.append(nn.GroupNorm(groups, config.width))
        layers.append({"relu": nn.ReLU(), "tanh": nn.Tanh()}[config.activation])
        layers.append(nn.AvgPool2d(2))
        channels, h, w = config.width, h // 2, w // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * h * w, classes))


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
@pytest.mark.parametrize(("shape", "depth"), [((3, 32, 32), 3), ((1, 28, 28), 3), ((1, 8, 8), 2)])
def test_agrees_with_torch_modules(norm, shape, depth):
    config = ConvNetConfig(width=8, depth=depth, norm=norm, activation="tanh" if norm == "none" else "relu")
    net, reference = ConvNet(config, shape, 10), sequential(config, shape, 10)
    params = torch.randn(1, net.num_params, generator=torch.Generator().manual_seed(0)) * 0.3
    nn.utils.vector_to_parameters(params[0], reference.parameters())
    images = torch.randn(5, *shape)
    torch.testing.assert_close(net(params, images)[0], reference(images), rtol=1e-4, atol=1e-5)
    features = net.features(params, images)
    assert features.shape == (1, 5, net.num_features)
    torch.testing.assert_close(features[0], reference[:-1](images), rtol=1e-4, atol=1e-5)


def test_published_size():
    assert ConvNet(ConvNetConfig(), (3, 32, 32), 10).num_params == 320_010
    assert ConvNet(ConvNetConfig(width=32, depth=2), (1, 8, 8), 10).num_params == 10_986


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
def test_k_networks_together_equal_k_alone(norm):
    net = ConvNet(ConvNetConfig(width=8, depth=2, norm=norm), (3, 16, 16), 7)
    params = net.init(3, torch.Generator().manual_seed(1))
    shared, each = torch.randn(4, 3, 16, 16), torch.randn(3, 4, 3, 16, 16)
    alone = torch.cat([net(p[None], shared) for p in params])
    alone_each = torch.cat([net(p[None], x) for p, x in zip(params, each, strict=True)])
    torch.testing.assert_close(net(params, shared), alone)
    torch.testing.assert_close(net(params, each), alone_each)


def test_init_is_torchs_distribution_and_repeatable():
    net = ConvNet(ConvNetConfig(width=16, depth=2), (3, 8, 8), 10)
    params = net.init(2, torch.Generator().manual_seed(3))
    assert torch.equal(params, net.init(2, torch.Generator().manual_seed(3)))
    first = params[:, : 16 * 27]  # weights of the first convolution, fan in 27
    bound = 27**-0.5
    assert first.abs().max() <= bound
    assert first.std() == pytest.approx(bound / 3**0.5, rel=0.1)
    gains = params[:, 16 * 27 + 16 : 16 * 27 + 32]
    assert torch.equal(gains, torch.ones(2, 16))


@pytest.mark.parametrize("side", [7, 8])
def test_pooling(side):
    x = torch.randn(2, 3, side, side)
    torch.testing.assert_close(pool2x2(x), F.avg_pool2d(x, 2))


def test_errors():
    with pytest.raises(ConfigError, match="depth"):
        ConvNet(ConvNetConfig(depth=4), (1, 8, 8), 10)
    with pytest.raises(ConfigError, match="instnce"):
        ConvNetConfig(norm="instnce")
    net = ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 10)
    with pytest.raises(ValueError, match="params"):
        net(torch.zeros(2, 3), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="images"):
        net(torch.zeros(2, net.num_params), torch.zeros(1, 3, 8, 8))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))


def test_own_module():
    net = ModuleNetwork(mlp, (1, 8, 8), 10, "mlp")
    assert isinstance(net, Network)
    before = torch.get_rng_state()
    params = net.init(2, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state()), "the global generator was touched"
    assert not torch.equal(params[0], params[1])
    images = torch.randn(3, 1, 8, 8)
    module = mlp()
    nn.utils.vector_to_parameters(params[1], module.parameters())
    torch.testing.assert_close(net(params, images)[1], module(images))
    torch.testing.assert_close(net.features(params, images)[1], module[:-1](images))


def test_module_with_running_statistics_is_refused():
    with pytest.raises(ConfigError, match="buffers"):
        ModuleNetwork(lambda: nn.Sequential(nn.BatchNorm2d(1), mlp()), (1, 8, 8), 10, "bn")


def test_build_network_from_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\n"
        "def make(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0]*shape[1]*shape[2], classes))\n"
    )
    net = build_network(f"{path}:make", (1, 8, 8), 10)
    assert net.num_params == 650
    with pytest.raises(ConfigError, match="no function"):
        build_network(f"{path}:other", (1, 8, 8), 10)
    with pytest.raises(ConfigError, match="no such file"):
        build_network("nowhere.py:make", (1, 8, 8), 10)
    with pytest.raises(ConfigError, match="Unknown model"):
        build_network("resnet", (1, 8, 8), 10)
