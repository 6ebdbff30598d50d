"""The draws of one posterior in ArviZ's form and in a netCDF file, so that others can check them with their own tools.

Glossary: c chains of s draws each, after warm-up and thinning; t tracked test images.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpc.errors import ConfigError, FileFormatError
from bpc.files import write_atomic

if TYPE_CHECKING:
    import arviz as az

__all__ = ["as_array", "import_arviz", "load_inference_data", "save_inference_data", "to_inference_data"]

Array = NDArray[np.float64]
_UNITS = {
    "prediction": "probability of the label",
    "log_density": "nats",
    "lp": "nats",
    "energy": "nats",
    "log_evidence": "nats",
}


def to_inference_data(
    *,
    log_density: Tensor | Array,
    predictions: Tensor | Array,
    accept_prob: Tensor | Array | None = None,
    diverged: Tensor | Array | None = None,
    energy: Tensor | Array | None = None,
    step_size: Tensor | Array | None = None,
    tree_depth: Tensor | Array | None = None,
    n_gradients: Tensor | Array | None = None,
    heat: Tensor | Array | None = None,
    cross_entropy: Tensor | Array | None = None,
    weights: Tensor | Array | None = None,
    estimates: Mapping[str, Tensor | Array | None] | None = None,
    images: Sequence[int] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> az.InferenceData:
    """The draws of one posterior in ArviZ's form; what a sampler does not have is left out.

    Args:
        log_density: (c, s) nats, unnormalised.
        predictions: (c, s, t) probability of the true label on t tracked test images, by each draw alone.
        accept_prob: (c, s) fraction.
        diverged: (c, s) bool.
        energy: (c, s) nats, potential plus kinetic energy of the accepted state.
        heat: (c, s) excess temperature of noisy gradients, fraction.
        cross_entropy: (c, s) nats per unit of weight, on the points that the posterior is conditioned on.
        weights: (c, s, w) tracked parameters.
        estimates: (c, s) each, by name: of something that is no draw, from the run up to a draw (log evidence, swap rate).
        step_size, tree_depth, n_gradients: (c, s), or (c,) where they do not change.
        images: (t,) indices of the tracked images in the test set; 0 to t - 1 otherwise.
        attrs: what the draws are of: method, dataset, sampler, protocol, seed, config_hash ...; anything but a number or a
            string is kept as JSON, because netCDF knows no other.

    Returns:
        Group `posterior` with `prediction` (chain, draw, image), `log_density` (chain, draw) and `weight` (chain, draw,
        parameter); group `sample_stats` with `lp` (the log density again, under ArviZ's name) and acceptance_rate, diverging,
        energy, step_size, tree_depth, n_steps, heat, cross_entropy.

    Raises:
        ConfigError: shapes that do not belong together.
    """
    density, tracked = as_array(log_density), as_array(predictions)
    if density.ndim != 2 or tracked.ndim != 3 or tracked.shape[:2] != density.shape or 0 in tracked.shape:
        raise ConfigError(
            f"Expected log densities (c, s) and predictions (c, s, t) of the same draws; got {density.shape} and {tracked.shape}."
        )
    if images is not None and len(images) != tracked.shape[2]:
        raise ConfigError(f"{len(images)} indices for {tracked.shape[2]} tracked images; expected one each.")
    stats = {"lp": density}
    given = {
        "acceptance_rate": accept_prob,
        "diverging": diverged,
        "energy": energy,
        "step_size": step_size,
        "tree_depth": tree_depth,
        "n_steps": n_gradients,
        "heat": heat,
        "cross_entropy": cross_entropy,
        **(estimates or {}),
    }
    for name, values in given.items():
        if values is None:
            continue
        array = as_array(values)
        if array.shape not in (density.shape, density.shape[:1]):
            raise ConfigError(f"Expected {name} of shape {density.shape} or {density.shape[:1]}; got {array.shape}.")
        stats[name] = np.broadcast_to(array if array.ndim == 2 else array[:, None], density.shape)
    if "diverging" in stats:
        stats["diverging"] = stats["diverging"].astype(bool)
    drawn = {"prediction": tracked.astype(np.float32), "log_density": density}
    if weights is not None:
        drawn["weight"] = as_array(weights).astype(np.float32)
        if drawn["weight"].shape[:2] != density.shape:
            raise ConfigError(f"Expected weights (c, s, w) of the same draws; got {drawn['weight'].shape}.")
    arviz = import_arviz()
    with warnings.catch_warnings():
        # a short run of many chains is allowed; the shapes were checked above
        warnings.filterwarnings("ignore", "More chains", UserWarning)
        data = arviz.from_dict(
            posterior=drawn,
            sample_stats=stats,
            coords={"image": list(images) if images is not None else list(range(tracked.shape[2]))},
            dims={"prediction": ["image"], "weight": ["parameter"]},
            attrs={name: _attribute(value) for name, value in (attrs or {}).items()},
        )
    for group in (data.posterior, data.sample_stats):
        group.attrs.pop("created_at", None)  # equal draws should be equal files
        for name, unit in _UNITS.items():
            if name in group:
                group[name].attrs["units"] = unit
    return data


def save_inference_data(data: az.InferenceData, path: Path | str) -> None:
    """Write a netCDF-4 file, whole or not at all; `arviz.from_netcdf` reads it without this project's code.

    Raises:
        StorageError: the file cannot be written.
    """
    tree = data.to_datatree()
    encoding = {f"/{g}": {name: {"zlib": True} for name in data[g].data_vars} for g in data.groups()}
    # In memory first: HDF5 reports a full disk in many ways, a plain write in one.
    buffer = io.BytesIO()
    tree.to_netcdf(buffer, engine="h5netcdf", encoding=encoding)
    content = buffer.getvalue()
    write_atomic(path, lambda stream: stream.write(content))


def load_inference_data(path: Path | str) -> az.InferenceData:
    """Read what `save_inference_data` wrote, into memory.

    Raises:
        FileFormatError: missing, truncated, not netCDF, or without `log_density` and `prediction`.
    """
    expected = "expected the draws of a posterior as netCDF"
    if not Path(path).is_file():
        raise FileFormatError(f"No such file: {path} ({expected}).")
    try:
        data = import_arviz().from_netcdf(str(path))
        try:
            data.load()
        finally:
            data.close()
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        size = Path(path).stat().st_size
        raise FileFormatError(
            f"{path} does not read as netCDF: {size} bytes ({error}); {expected}. It is truncated or of another format."
        ) from error
    if "posterior" not in data.groups() or not {"log_density", "prediction"} <= set(data.posterior.data_vars):
        raise FileFormatError(f"{path} has no log_density and prediction in a group posterior; {expected}.")
    return data


def as_array(values: Any) -> NDArray[Any]:
    """A NumPy array, float64 unless it is boolean."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array.astype(np.float64) if array.dtype != bool else array


def _attribute(value: Any) -> str | int | float:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return value
    return json.dumps(value.tolist() if isinstance(value, (torch.Tensor, np.ndarray, np.generic)) else value)


def import_arviz() -> Any:
    """ArviZ, imported when it is needed: that takes seconds, and once a day it announces its next version."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\\s*ArviZ is undergoing a major refactor", FutureWarning)
        try:
            import arviz
        except OSError as error:  # it keeps the day of the announcement in the user's cache
            raise ConfigError(
                f"ArviZ cannot write to its cache folder ({error}); set XDG_CACHE_HOME to a folder that can be written."
            ) from error
    return arviz
