"""A user's own network: its name follows its content, what is no pure function is refused, and failures are one line."""

import pytest
import torch
from torch import nn

from bpc.errors import ConfigError
from bpc.models import build_network

SHAPE = (1, 8, 8)
HEAD = "import torch\nfrom torch import nn\n"
PLAIN = HEAD + (
    "def build(image_shape, num_classes):\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.{act}(), nn.Linear(8, num_classes))\n"
)


def make(folder, text, name="mynet.py", function="build"):
    (folder / name).write_text(text)
    return build_network(f"{folder / name}:{function}", SHAPE, 10)


def test_an_edited_network_is_another_one(tmp_path):
    """Name and number of parameters are equal: only these were the key before."""
    tanh, again = make(tmp_path, PLAIN.format(act="Tanh")), make(tmp_path, PLAIN.format(act="Tanh"))
    sigmoid = make(tmp_path, PLAIN.format(act="Sigmoid"))
    assert tanh.num_params == sigmoid.num_params
    assert tanh.name == again.name != sigmoid.name
    assert tanh.name.startswith("mynet-build-")


def test_what_the_file_imports_counts_as_well(tmp_path):
    layer = "import torch\nfrom torch import nn\nclass Act(nn.Module):\n    def forward(self, x):\n        return torch.{f}(x)\n"
    text = HEAD + (
        "from mylayers_{n} import Act\n"
        "def build(s, y):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, y), Act())\n"
    )
    names = []
    for n, f in enumerate(("tanh", "sigmoid")):
        (tmp_path / f"mylayers_{n}.py").write_text(layer.format(f=f))
        names.append(make(tmp_path, text.format(n=0) if n == 0 else text.format(n=1)).name)
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        ("nn.Dropout(0.5)", "Dropout"),
        ("nn.RReLU()", "RReLU"),
        ("Noise()", "different logits"),
        ("Count()", "different logits"),
        ("nn.BatchNorm1d(8, track_running_stats=False)", "images beside it"),
        ("nn.BatchNorm1d(8)", "buffers"),
    ],
)
def test_what_is_random_or_keeps_state_is_refused(tmp_path, layer, word):
    text = HEAD + (
        "class Noise(nn.Module):\n    def forward(self, x):\n        return x + torch.randn_like(x)\n"
        "class Count(nn.Module):\n    n = 0\n    def forward(self, x):\n        self.n += 1\n        return x + self.n\n"
        f"def build(s, y):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), {layer}, nn.Linear(8, y))\n"
    )
    with pytest.raises(ConfigError, match=word):
        make(tmp_path, text)


def test_dropout_of_nothing_is_allowed(tmp_path):
    text = HEAD + "def build(s, y):\n    return nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(64, y))\n"
    assert make(tmp_path, text).num_params == 650


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def build(s, y)\n    pass\n", ["line 1", "SyntaxError"]),
        ("import nowhere_at_all\n", ["line 1", "ModuleNotFoundError", "nowhere_at_all"]),
        (HEAD + "def build(s):\n    return nn.Flatten()\n", ["TypeError", "positional"]),
        (HEAD + "def build(s, y):\n    x = 1\n    raise RuntimeError('no luck')\n", ["line 5", "no luck"]),
        (HEAD + "def build(s, y):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n", ["(2, 3)", "(2, 10)"]),
        (HEAD + "def build(s, y):\n    return nn.Sequential(nn.Flatten(), nn.Linear(7, 10))\n", ["mat1"]),
        ("import sys\nsys.exit(0)\n", ["line 2", "SystemExit"]),
        ("def build(s, y):\n    return 5\n", ["int", "nn.Module"]),
        ("x = 1\n", ["no function 'build'"]),
        ("build = 3\n", ["no function 'build'"]),
    ],
)
def test_failures_are_one_line_with_file_line_and_cause(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, text)
    message = str(caught.value)
    assert "mynet.py" in message and "\n" not in message
    for word in words:
        assert word in message, message


def test_a_network_of_its_own_kind(tmp_path):
    text = HEAD + (
        "class Linear:\n    num_params, num_classes, image_shape, name = 640, 10, (1, 8, 8), 'mine'\n"
        "    def init(self, k, generator):\n        return torch.zeros(k, 640)\n"
        "    def __call__(self, params, images):\n"
        "        x = images.flatten(-3).expand(len(params), -1, -1)\n"
        "        return x @ params.view(-1, 64, 10)\n"
        "    def features(self, params, images):\n        return images.flatten(-3).expand(len(params), -1, -1)\n"
        "def build(s, y):\n    return Linear()\n"
    )
    network = make(tmp_path, text)
    assert network.name.startswith("mynet-build-") and not isinstance(network, nn.Module)
    assert network(torch.zeros(2, 640), torch.zeros(3, 1, 8, 8)).shape == (2, 3, 10)


def test_odd_file_names_are_no_part_of_a_path(tmp_path):
    network = make(tmp_path, PLAIN.format(act="Tanh"), name="my net..v2.py")
    assert network.name.startswith("my_net_v2-build-")


def test_a_relative_file_s_line_is_named_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("x = 1\nimport not_there_at_all\n")
    with pytest.raises(ConfigError, match=r"net\.py, line 2"):
        build_network("net.py:build", SHAPE, 10)
