"""Nearest neighbours of latents among exemplars, by faiss where it is installed (approximate, fast) or scikit-learn (exact)."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

__all__ = ["Search"]

EXACT_UP_TO = 20_000  # exemplars; below, an exact search is as fast
LINKS = 32  # of each node of faiss's graph index


class Search:
    """An index over points (k, d), queried by `nearest`.

    With faiss (an extra: ``pip install .[neighbours]``) and many points it is a graph index (HNSW), otherwise scikit-learn's
    exact search.
    """

    def __init__(self, points: Tensor) -> None:
        self._device = points.device
        array = points.detach().cpu().float().contiguous().numpy()
        self._faiss: Any = None
        if len(array) > EXACT_UP_TO and importlib.util.find_spec("faiss") is not None:
            import faiss

            self._faiss = faiss.IndexHNSWFlat(array.shape[1], LINKS)
            self._faiss.add(array)
        else:
            from sklearn.neighbors import NearestNeighbors

            self._exact = NearestNeighbors(algorithm="brute").fit(array)

    def nearest(self, queries: Tensor, count: int) -> Tensor:
        """Indices of the `count` nearest points of each query (n, d): (n, count) int64; -1 where the graph led to fewer."""
        array = queries.detach().cpu().float().contiguous().numpy()
        if self._faiss is not None:
            found = self._faiss.search(array, count)[1]
        else:
            found = self._exact.kneighbors(array, n_neighbors=count, return_distance=False)
        return torch.from_numpy(found).long().to(self._device)
