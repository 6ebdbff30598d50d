"""CUDA graphs: a gradient is recorded once and replayed, so that a small network does not wait for a hundred kernel launches.

A recording is of the kernels that ran, on the memory they ran on: a replay gives the bits of the call that it stands for. So a
function that is recorded must be pure, draw no random numbers and never look at a tensor's values; one that does is refused with
a reason and called as ever. On the CPU nothing is recorded.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bpc.progress import say

__all__ = ["Recordings", "without_graphs"]

WARM_UPS = 2  # eager calls before a recording: libraries choose kernels and take their workspaces in them
MOST_SHAPES = 6  # recordings of one function; each keeps the memory of a call

_enabled = True
_said: set[str] = set()


@contextmanager
def without_graphs() -> Iterator[None]:
    """Record and replay nothing meanwhile: to compare with, and for timings."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


class Recordings:
    """Recorded calls of one function (k, p) -> tensors, one for each shape that it was given."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], _Recording | None] = {}

    def __call__(
        self, function: Callable[[Tensor], tuple[Tensor, ...]], params: Tensor, *reads: Tensor
    ) -> tuple[Tensor, ...]:
        """``function(params)``, replayed where that is possible.

        Args:
            function: always the same one; it is not kept.
            params: detached.
            reads: what the function reads besides. Other tensors there are another function; their values may change.

        Returns:
            Tensors of the caller's own.
        """
        if not params.is_cuda or not _enabled or torch.cuda.is_current_stream_capturing():
            return function(params)
        key = (params.shape, params.dtype, params.device, *(id(tensor) for tensor in reads))
        if key not in self._found:
            self._found[key] = _record(function, params, reads) if len(self._found) < MOST_SHAPES else None
        recording = self._found[key]
        return function(params) if recording is None else recording(params)

    @property
    def replayed(self) -> int:
        """How many shapes have a recording."""
        return sum(recording is not None for recording in self._found.values())


class _Recording:
    """A graph with the memory that its input and outputs live in."""

    def __init__(
        self, graph: torch.cuda.CUDAGraph, params: Tensor, outputs: tuple[Tensor, ...], reads: tuple[Tensor, ...]
    ) -> None:
        self._graph, self._params, self._outputs = graph, params, outputs
        self._reads = reads  # they have to stay where they are

    def __call__(self, params: Tensor) -> tuple[Tensor, ...]:
        self._params.copy_(params)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)  # the next replay writes over them


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings of a device: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream(device)


def _record(
    function: Callable[[Tensor], tuple[Tensor, ...]], params: Tensor, reads: tuple[Tensor, ...]
) -> _Recording | None:
    """Record one call, or say why it cannot be."""
    with torch.cuda.device(params.device):
        here, side = torch.cuda.current_stream(), _side_stream(params.device)
        inputs = params.detach().clone()
        random = torch.cuda.get_rng_state(params.device)
        side.wait_stream(here)
        try:
            with torch.cuda.stream(here):  # given back whatever happens to a recording that breaks
                with torch.cuda.stream(side):
                    for _ in range(WARM_UPS):
                        function(inputs)
                    with _nobody_waits():  # a recording that breaks on a look at values is worse than none
                        function(inputs)
                here.wait_stream(side)
                if not torch.equal(random, torch.cuda.get_rng_state(params.device)):
                    raise RuntimeError("it draws random numbers")
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=side):
                    outputs = function(inputs)
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if reason not in _said:
                _said.add(reason)
                say(f"No CUDA graph of the gradient, which is taken kernel by kernel: {reason}")
            return None
    return _Recording(graph, inputs, outputs, reads)


@contextmanager
def _nobody_waits() -> Iterator[None]:
    """An operation that makes the host wait for the device is a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode of torch is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
