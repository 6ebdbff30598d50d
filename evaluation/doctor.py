"""What is here: device, versions, datasets, optional parts and how to get them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from bpc.data import describe_datasets
from bpc.data.sources import resolve_root, root_problem
from bpc.runs import versions
from evaluation.table import Column, Table, TableRow

__all__ = ["report"]

OPTIONAL = {
    "pyro": ("Pyro, an independent HMC and NUTS", "pip install pyro-ppl"),
    "hamiltorch": (
        "hamiltorch, an independent HMC",
        "pip install git+https://github.com/AdamCobb/hamiltorch@19b627b (not on the Python index)",
    ),
}


def report(data_root: Path | None) -> list[Table]:
    """Tables to print; loads no dataset and imports no optional package (hamiltorch reseeds generators on import)."""
    machine = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            machine.append((f"cuda:{index}", f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"))
    else:
        machine.append(("GPU", "none that torch can use; --device auto takes the CPU"))
    machine.append(("CPU", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"))
    machine.append(("disk", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free here"))
    machine.append(("versions", ", ".join(f"{k} {v}" for k, v in versions().items())))

    root = resolve_root(data_root)
    if root is None:
        machine.append(("data root", "none; --data-root or BPC_DATA_ROOT names the folder that holds datasets"))
    else:
        problem = root_problem(root)
        machine.append(("data root", f"{root}, which {problem}: name another" if problem else str(root)))

    data = [(s.name, "yes" if s.found else "no", s.where) for s in describe_datasets(data_root)]
    optional = []
    for package, (what, how) in OPTIONAL.items():
        here = importlib.util.find_spec(package) is not None
        optional.append((what, "yes" if here else "no", "" if here else how))
    return [
        _texts("Machine", ("Part", "What is here"), machine),
        _texts("Datasets (--data-root or BPC_DATA_ROOT, the cache, a download)", ("Dataset", "Found", "Where"), data),
        _texts("Optional parts", ("Part", "Found", "How to get it"), optional),
    ]


def _texts(caption: str, names: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> Table:
    columns = tuple(Column(name=name, key=place == 0, left=True) for place, name in enumerate(names))
    return Table(caption=caption, columns=columns, blocks=(tuple(map(TableRow, lines)),))
