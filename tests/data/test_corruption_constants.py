"""Constants of CIFAR-10-C that the pixels' own statistics barely show: what is random is first recovered from the files."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bpc.data import corrupt, frost

SEEDS = 4
LIMIT = 4.5  # standard errors


def largest_z(files, ours):
    """Statistics (n, q) of the files against those of SEEDS repetitions of ours, in standard errors over images."""
    spread = (ours.var(0).mean(0) * (1 + 1 / len(ours)) / files.shape[0]).sqrt()
    return float(((files - ours.mean(0)).mean(0).abs() / spread).max())


def compare(name, found, ours, apart, capsys):
    """The files against ours at their severity (must agree), and `apart` severities off (must not).

    `found[s]` are the files' statistics, (n, q), and `ours(s, t)` ours at severity t read as if it were s, (SEEDS, n, q).
    """
    agree = [largest_z(found[s], ours(s, s)) for s in range(5)]
    with capsys.disabled():
        print(f"\n{name:18s} recovered, z of severities 1-5: " + " ".join(f"{z:.1f}" for z in agree), end="")
    assert max(agree) < LIMIT
    for s in range(5 - apart):
        assert largest_z(found[s], ours(s, s + apart)) > LIMIT, f"severity {s + 1 + apart} passes for {s + 1}"
        assert largest_z(found[s + apart], ours(s + apart, s)) > LIMIT, f"severity {s + 1} passes for {s + 1 + apart}"


def noise_by_level(foggy, clean, severity):
    """(n, 2): how much the noise shrinks, as a logarithm, from one level of the diamond-square algorithm to the next.

    The clouds are solved for in the fog; the noise of a level is what its points differ by from the mean of their neighbours.
    """
    amount = (0.2, 0.5, 0.75, 1, 1.5)[severity]
    x = clean.double() / 255
    brightest = x.amax((1, 2, 3), keepdim=True)
    layer = (((foggy.double() + 0.5) / 255 * (brightest + amount) / brightest - x) / amount).mean(1)
    levels = []
    for step in (32, 16, 8):
        corners, centres = layer[:, ::step, ::step], layer[:, step // 2 :: step, step // 2 :: step]
        rows, columns = layer[:, ::step, step // 2 :: step], layer[:, step // 2 :: step, ::step]
        below, right = corners.roll(-1, 1), corners.roll(-1, 2)
        noise = [
            centres - (corners + below + right + below.roll(-1, 2)) / 4,
            rows - (corners + right + centres + centres.roll(1, 1)) / 4,
            columns - (corners + below + centres + centres.roll(1, 2)) / 4,
        ]
        levels.append(torch.cat([n.abs().flatten(1) for n in noise], dim=1).mean(1).log())
    return torch.stack([levels[1] - levels[0], levels[2] - levels[1]], dim=1)


def test_fog_noise_shrinks_as_in_the_files(reference, capsys):
    # severities 1 and 2 share their decay: two apart they all differ
    clean, load = reference
    files = load("fog")
    foggy = [[corrupt(clean, "fog", t + 1, seed=seed) for seed in range(SEEDS)] for t in range(5)]

    def ours(s, t):
        return torch.stack([noise_by_level(i, clean, s) for i in foggy[t]])

    compare("fog", [noise_by_level(files[s], clean, s) for s in range(5)], ours, 2, capsys)


def warp(images, moved):
    """Images (n, 3, h, w) under the affine map that moves three corners of their middle by `moved` (n, 3, 2) in (x, y) pixels."""
    side = images.shape[-1]
    centre, third = side // 2, side // 3
    corners = images.new_tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]) * third + centre
    back = torch.linalg.solve(torch.cat([corners + moved, corners.new_ones(len(moved), 3, 1)], dim=2), corners)
    axis = torch.arange(side, dtype=images.dtype)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(1, -1, 3) @ back
    grid = grid.reshape(-1, side, side, 2) * 2 / (side - 1) - 1
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def fit(warped, clean):
    """(n, 2): the largest move of a corner in pixels and the logarithm of what an affine map leaves unexplained.

    Gauss-Newton from three blurs down to none; a few images without features are fitted badly, in the files as in ours.
    """
    target, source = warped.double() / 255, clean.double() / 255
    moved = torch.zeros(len(clean), 3, 2, dtype=torch.float64)
    for width, rounds in ((9, 4), (5, 3), (1, 4)):
        a, b = (F.avg_pool2d(i, width, 1, width // 2, count_include_pad=False) for i in (source, target))
        for _ in range(rounds):
            now = warp(a, moved)
            slopes = []
            for j in range(6):
                nudge = torch.zeros(6, dtype=torch.float64)
                nudge[j] = 0.05
                slopes.append((warp(a, moved + nudge.reshape(3, 2)) - now).flatten(1) / 0.05)
            slope = torch.stack(slopes, dim=2)
            normal = slope.mT @ slope + 1e-3 * torch.eye(6, dtype=torch.float64)
            step = torch.linalg.solve(normal, slope.mT @ (b - now).flatten(1)[..., None])
            moved = (moved + step.reshape(-1, 3, 2).clamp(-1, 1)).clamp(-4, 4)
    left = ((warp(source, moved) - target) ** 2).mean((1, 2, 3))
    return torch.stack([moved.abs().flatten(1).amax(1), (left + 1e-6).log()], dim=1)


def test_elastic_maps_are_as_large_as_the_files(reference, capsys):
    clean, load = reference
    fits = [
        torch.stack([fit(corrupt(clean, "elastic_transform", t + 1, seed=seed), clean) for seed in range(SEEDS)])
        for t in range(5)
    ]
    found = [fit(images, clean) for images in load("elastic_transform")]
    compare("elastic_transform", found, lambda s, t: fits[t], 1, capsys)


def test_frost_is_the_files_at_some_place_of_some_photograph(reference):
    """Which photograph and which piece of it is not known, but one gives every pixel of the file exactly."""
    clean, load = reference
    if frost._root is None or not (frost._root / "frost").is_dir():
        pytest.skip("the photographs of frost are not in the data root (folder frost)")
    files = load("frost").permute(0, 1, 3, 4, 2).double().numpy()
    for severity, (keep, add) in enumerate(((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))):
        for i in range(4):
            image, file = clean[i].permute(1, 2, 0).double().numpy(), files[severity, i]
            assert any(piece_matches(texture[2::5, 2::5], image, file, keep, add) for texture in frost.frost_textures())


def piece_matches(photograph, image, file, keep, add):
    """Whether a 32 x 32 piece of `photograph` makes `file`; the candidates are those that fit in one pixel, then the next."""
    height, width = photograph.shape[0] - 31, photograph.shape[1] - 31
    tops, lefts = (a.ravel() for a in np.mgrid[:height, :width])
    for row in range(32):
        for column in range(32):
            made = np.clip(keep * image[row, column] + add * photograph[tops + row, lefts + column], 0, 255)
            fits = (np.floor(made) == file[row, column]).all(axis=1)
            tops, lefts = tops[fits], lefts[fits]
    return len(tops) > 0
