"""The augmentation against per-image NumPy and SciPy implementations, given the draw."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor

from bpc import augment
from bpc.augment import OPERATIONS, Augment, AugmentConfig, AugmentDraw, apply, draw, parse_strategy
from bpc.errors import ConfigError
from bpc.seeding import make_generator

SHAPES = [(3, 32, 32), (1, 8, 8), (2, 9, 14)]


def rand_images(n: int, shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, *shape, generator=make_generator("cpu", 7, n, *shape), dtype=dtype)


def one(operation: str, **changes: float) -> AugmentConfig:
    return AugmentConfig(operations=(operation,), **changes)  # type: ignore[arg-type]


def reference(images: np.ndarray, d: AugmentDraw) -> np.ndarray:
    """Every operation again, image by image."""
    out = []
    for i, image in enumerate(images):
        for operation in d.operations:
            image = _reference_one(operation, image, d, i if d.rows > 1 else 0)
        out.append(image)
    return np.stack(out)


def _reference_one(operation: str, image: np.ndarray, d: AugmentDraw, i: int) -> np.ndarray:
    h, w = image.shape[1:]
    if operation == "color":
        assert d.brightness is not None and d.saturation is not None and d.contrast is not None
        image = image + float(d.brightness[i])
        grey = image.mean(0)
        image = (image - grey) * float(d.saturation[i]) + grey
        return (image - image.mean()) * float(d.contrast[i]) + image.mean()
    if operation == "crop":  # a window of the zero-padded image
        assert d.crop is not None
        dy, dx = (int(v) for v in d.crop[i])
        pad = max(h, w)
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
        return padded[:, pad + dy : pad + dy + h, pad + dx : pad + dx + w]
    if operation == "cutout":
        assert d.cutout is not None
        image = image.copy()
        (y, x), (a, b) = (int(v) for v in d.cutout[i]), d.cutout_size
        top, left = y - a // 2, x - b // 2
        image[:, max(top, 0) : max(top + a, 0), max(left, 0) : max(left + b, 0)] = 0
        return image
    if operation == "flip":
        assert d.flip is not None
        return image[:, :, ::-1] if bool(d.flip[i]) else image
    if operation == "scale":
        assert d.scale is not None
        matrix = np.diag([float(d.scale[i, 0]), float(d.scale[i, 1])])
    else:
        assert d.angle is not None
        t = float(d.angle[i])
        matrix = np.array([[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]])  # on (y, x)
    centre = np.array([(h - 1) / 2, (w - 1) / 2])
    # "grid-constant" also interpolates between the border and the zeros outside
    return np.stack(
        [
            scipy.ndimage.affine_transform(
                plane, matrix, centre - matrix @ centre, order=1, mode="grid-constant", cval=0.0
            )
            for plane in image
        ]
    )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_equals_reference(operation: str, shape: tuple[int, int, int], shared: bool) -> None:
    images = rand_images(6, shape)
    d = draw(one(operation), 6, shape, make_generator("cpu", 0, operation), shared=shared)
    # the draws are float32, so sines and products differ from float64 ones in the eighth digit
    np.testing.assert_allclose(apply(images, d).numpy(), reference(images.numpy(), d), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_operations_in_order(shape: tuple[int, int, int]) -> None:
    images = rand_images(4, shape)
    for operations in (OPERATIONS, OPERATIONS[::-1]):
        config = AugmentConfig(operations=operations, mode="all")
        d = draw(config, 4, shape, make_generator("cpu", 1))
        assert d.operations == operations
        np.testing.assert_allclose(apply(images, d).numpy(), reference(images.numpy(), d), atol=1e-5)


def test_crop_rolls_and_fills_with_zeros() -> None:
    images = rand_images(3, (2, 8, 10))
    d = AugmentDraw(operations=("crop",), crop=torch.tensor([[1, 0], [0, -2], [-1, 3]]))
    expected = images.numpy().copy()
    expected[0] = np.roll(expected[0], -1, axis=1)
    expected[0, :, -1] = 0
    expected[1] = np.roll(expected[1], 2, axis=2)
    expected[1, :, :, :2] = 0
    expected[2] = np.roll(expected[2], (1, -3), axis=(1, 2))
    expected[2, :, 0] = 0
    expected[2, :, :, -3:] = 0
    np.testing.assert_array_equal(apply(images, d).numpy(), expected)


@pytest.mark.parametrize(("y", "x", "area"), [(16, 16, 256), (0, 0, 64), (32, 16, 128), (32, 32, 64)])
def test_cutout_area_and_location(y: int, x: int, area: int) -> None:
    images = torch.ones(1, 3, 32, 32)
    d = AugmentDraw(operations=("cutout",), cutout=torch.tensor([[y, x]]), cutout_size=(16, 16))
    hole = apply(images, d)[0] == 0
    assert int(hole.sum()) == 3 * area
    rows, columns = torch.nonzero(hole[0], as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (max(y - 8, 0), min(y + 7, 31))
    assert (int(columns.min()), int(columns.max())) == (max(x - 8, 0), min(x + 7, 31))


@pytest.mark.parametrize(("turns", "size"), [(1, 8), (1, 7), (2, 8), (-1, 8)])
def test_rotation_by_quarter_turns_is_rot90(turns: int, size: int) -> None:
    images = rand_images(2, (3, size, size))
    angle = torch.tensor([turns * math.pi / 2], dtype=torch.float64)
    out = apply(images, AugmentDraw(operations=("rotate",), angle=angle))
    torch.testing.assert_close(out, torch.rot90(images, turns, (-2, -1)), atol=1e-9, rtol=0)


def test_half_turn_of_a_wide_image() -> None:
    images = rand_images(1, (1, 6, 10))
    angle = torch.tensor([math.pi], dtype=torch.float64)
    out = apply(images, AugmentDraw(operations=("rotate",), angle=angle))
    torch.testing.assert_close(out, images.flip(-1, -2), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "identity",
    [
        AugmentDraw(),
        AugmentDraw(operations=("scale",), scale=torch.ones(1, 2)),
        AugmentDraw(operations=("rotate",), angle=torch.zeros(1)),
        AugmentDraw(operations=("crop",), crop=torch.zeros(1, 2, dtype=torch.int64)),
        AugmentDraw(operations=("flip",), flip=torch.tensor([False])),
        AugmentDraw(operations=("cutout",), cutout=torch.tensor([[3, 3]]), cutout_size=(0, 0)),
        AugmentDraw(operations=("color",), brightness=torch.zeros(1), saturation=torch.ones(1), contrast=torch.ones(1)),
    ],
    ids=lambda d: "_".join(d.operations) or "none",
)
def test_identity_draws(identity: AugmentDraw) -> None:
    images = rand_images(3, (3, 8, 12))
    torch.testing.assert_close(apply(images, identity), images, atol=1e-12, rtol=0)


def test_sampling_by_products_equals_grid_sample() -> None:
    """The path that CUDA takes for gradients, in value and gradient."""
    grad_out = rand_images(5, (2, 9, 14))
    for rows in (1, 5):
        grid = 2.4 * torch.rand(rows, 9, 14, 2, generator=make_generator("cpu", 3), dtype=torch.float64) - 1.2
        results = []
        for sample in (
            augment._sample_by_products,
            lambda x, g: F.grid_sample(x, g.expand(5, -1, -1, -1), padding_mode="zeros", align_corners=False),
        ):
            images = rand_images(5, (2, 9, 14)).add(1.0).requires_grad_()
            out = sample(images, grid)
            results.append((out.detach(), torch.autograd.grad(out, images, grad_out)[0]))
        torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradient(operation: str) -> None:
    images = rand_images(3, (2, 5, 6)).requires_grad_()
    d = draw(one(operation), 3, (2, 5, 6), make_generator("cpu", 5, operation))
    assert torch.autograd.gradcheck(lambda x: apply(x, d), (images,), atol=1e-6)


def test_inside_a_differentiated_parameter_gradient() -> None:
    """As the Wasserstein divergence does: an SGD step on augmented images, then its gradient in the images."""
    config = AugmentConfig(mode="all")
    d = draw(config, 3, (2, 6, 6), make_generator("cpu", 2), shared=True)
    generator = make_generator("cpu", 4)
    weight = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 3])

    def distance(images: Tensor) -> Tensor:
        logits = F.softplus(F.conv2d(apply(images, d), weight)).mean((2, 3))
        (grad,) = torch.autograd.grad(F.cross_entropy(logits, labels), weight, create_graph=True)
        return (weight - 0.1 * grad - target).square().sum()

    images = rand_images(3, (2, 6, 6)).requires_grad_()
    assert torch.autograd.gradcheck(distance, (images,), atol=1e-6)


def test_siamese() -> None:
    """A draw does the same to two batches; a shared one to batches of any size, image by image."""
    for operation in OPERATIONS:
        d = draw(one(operation), 4, (3, 8, 8), make_generator("cpu", 6))
        a, b = rand_images(4, (3, 8, 8)), rand_images(8, (3, 8, 8))[4:]
        both = apply(torch.stack((a, b)), d)
        torch.testing.assert_close(both, torch.stack((apply(a, d), apply(b, d))))
        torch.testing.assert_close(apply(torch.cat((a, b)), d), both.flatten(0, 1))  # (k * n, c, h, w)
        shared = draw(one(operation), 4, (3, 8, 8), make_generator("cpu", 6), shared=True)
        assert shared.rows == 1
        for images in (a, rand_images(7, (3, 8, 8))):
            alone = torch.cat([apply(image[None], shared) for image in images])
            torch.testing.assert_close(apply(images, shared), alone)


def test_images_are_transformed_independently_unless_shared() -> None:
    images = rand_images(1, (3, 16, 16)).expand(32, -1, -1, -1)
    for operation in OPERATIONS:
        augmenter = Augment(one(operation))
        own = augmenter(images, make_generator("cpu", 0))
        assert not torch.equal(own, own[:1].expand_as(own))
        shared = augmenter(images, make_generator("cpu", 0), shared=True)
        torch.testing.assert_close(shared, shared[:1].expand_as(shared))


def test_randomness_comes_from_the_generator_alone() -> None:
    images = rand_images(4, (3, 8, 8), torch.float32)
    augmenter = Augment(AugmentConfig())
    first, second = make_generator("cpu", 1), make_generator("cpu", 1)
    state = torch.get_rng_state()
    a = [augmenter(images, first) for _ in range(12)]
    torch.manual_seed(99)
    b = [augmenter(torch.zeros_like(images) if i % 2 else images, second) for i in range(12)]
    assert all(torch.equal(x, y) for x, y in list(zip(a, b, strict=True))[::2])
    assert torch.equal(first.get_state(), second.get_state()), "pixel values changed the numbers consumed"
    torch.set_rng_state(state)
    assert not torch.equal(a[0], augmenter(images, make_generator("cpu", 2)))


def test_ranges_of_the_drawn_values() -> None:
    n, shape = 20_000, (3, 32, 24)
    d = draw(AugmentConfig(mode="all"), n, shape, make_generator("cpu", 11))
    assert d.crop is not None and d.cutout is not None and d.scale is not None and d.flip is not None
    bounds = {"brightness": (-0.5, 0.5), "saturation": (0.0, 2.0), "contrast": (0.5, 1.5)}
    bounds["angle"] = (-math.radians(15), math.radians(15))
    for name, (low, high) in bounds.items():
        values = getattr(d, name)
        _assert_uniform(values, low, high)
    for axis in range(2):
        _assert_uniform(d.scale[:, axis], 1 / 1.2, 1.2)
    assert abs(float(torch.corrcoef(d.scale.T)[0, 1])) < 0.03, "the two axes are independent"
    assert abs(float(d.flip.float().mean()) - 0.5) < 0.02
    assert d.crop[:, 0].unique().tolist() == list(range(-4, 5))
    assert d.crop[:, 1].unique().tolist() == list(range(-3, 4))
    assert d.cutout_size == (16, 12)
    assert d.cutout[:, 0].unique().tolist() == list(range(33))
    assert d.cutout[:, 1].unique().tolist() == list(range(25))


def _assert_uniform(values: Tensor, low: float, high: float) -> None:
    assert low <= float(values.min()) and float(values.max()) <= high
    quantiles = torch.quantile(values.double(), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64))
    expected = torch.linspace(low, high, 5, dtype=torch.float64)
    torch.testing.assert_close(quantiles, expected, atol=0.03 * (high - low), rtol=0)


def test_single_mode_draws_every_operation() -> None:
    generator = make_generator("cpu", 0)
    counts = dict.fromkeys(OPERATIONS, 0)
    for _ in range(1200):
        (operation,) = draw(AugmentConfig(), 1, (3, 8, 8), generator).operations
        counts[operation] += 1
    assert min(counts.values()) > 150 and max(counts.values()) < 250


def test_flip_probability_bounds() -> None:
    images = rand_images(50, (1, 4, 4))
    for probability, expected in ((0.0, images), (1.0, images.flip(-1))):
        out = Augment(one("flip", flip_probability=probability))(images, make_generator("cpu", 0))
        assert torch.equal(out, expected)


def test_none_takes_nothing_from_the_generator() -> None:
    generator = make_generator("cpu", 0)
    before = generator.get_state()
    images = rand_images(2, (1, 4, 4))
    assert Augment(parse_strategy("none"))(images, generator) is images
    assert torch.equal(before, generator.get_state())


def test_parse_strategy() -> None:
    assert parse_strategy("color_crop_cutout_flip_scale_rotate") == AugmentConfig()
    assert parse_strategy("none") is None
    config = parse_strategy("flip_crop", mode="all")
    assert config is not None and config.operations == ("flip", "crop") and config.mode == "all"
    assert config.strategy == "flip_crop"


@pytest.mark.parametrize(
    ("strategy", "message"),
    [("color_rotat", "'rotate'"), ("", "choose from"), ("flip_flip", "different operations")],
)
def test_bad_strategy(strategy: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_strategy(strategy)


@pytest.mark.parametrize(
    "changes",
    [
        {"operations": ()},
        {"mode": "both"},
        {"flip_probability": 1.5},
        {"scale_ratio": 0.9},
        {"rotate_degrees": -1.0},
        {"crop_ratio": math.nan},
        {"brightness": math.inf},
    ],
)
def test_bad_config(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(AugmentConfig(), **changes)  # type: ignore[arg-type]


def test_draw_for_another_number_of_images() -> None:
    d = draw(one("flip"), 4, (3, 8, 8), make_generator("cpu", 0))
    with pytest.raises(ConfigError, match=r"drawn for 4 images and got 6 \(shape \(6, 3, 8, 8\)\)"):
        apply(rand_images(6, (3, 8, 8)), d)


def test_incomplete_draw() -> None:
    with pytest.raises(ConfigError, match="needs the tensor 'saturation'"):
        AugmentDraw(operations=("color",), brightness=torch.zeros(1))
    with pytest.raises(ConfigError, match="same number of images"):
        AugmentDraw(operations=("flip", "rotate"), flip=torch.zeros(2, dtype=torch.bool), angle=torch.zeros(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_equals_cpu_and_repeats_its_gradient() -> None:
    images = rand_images(64, (3, 32, 32), torch.float32)
    for operation in OPERATIONS:
        d = draw(one(operation), 64, (3, 32, 32), make_generator("cpu", 0), device="cuda")
        grads = []
        for _ in range(3):
            x = images.cuda().requires_grad_()
            out = apply(x, d)
            torch.testing.assert_close(out.cpu(), apply(images, d.to("cpu")), atol=1e-3, rtol=1e-3)
            grads.append(torch.autograd.grad(out.square().sum(), x)[0])
        assert torch.equal(grads[0], grads[1]) and torch.equal(grads[0], grads[2])
