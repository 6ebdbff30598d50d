"""What is here: device, versions, datasets, optional parts and how to get them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import torch
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from bpc.data import describe_datasets
from bpc.data.sources import resolve_root, root_problem
from bpc.runs import versions

__all__ = ["report"]

OPTIONAL = {
    "pyro": ("Pyro, an independent HMC and NUTS", "pip install pyro-ppl"),
    "hamiltorch": (
        "hamiltorch, an independent HMC",
        "pip install git+https://github.com/AdamCobb/hamiltorch@19b627b (not on the Python index)",
    ),
}


def report(data_root: Path | None) -> list[RenderableType]:
    """Tables to print; loads no dataset and imports no optional package (hamiltorch reseeds generators on import)."""
    machine = Table(title="Machine", title_justify="left", show_header=False)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            machine.add_row(f"cuda:{index}", f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free")
    else:
        machine.add_row("GPU", "none that torch can use; --device auto takes the CPU")
    machine.add_row("CPU", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    machine.add_row("disk", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free here")
    machine.add_row("versions", ", ".join(f"{k} {v}" for k, v in versions().items()))

    root = resolve_root(data_root)
    if root is None:
        machine.add_row("data root", "none; --data-root or BPC_DATA_ROOT names the folder that holds datasets")
    else:
        problem = root_problem(root)
        machine.add_row("data root", escape(f"{root}, which {problem}: name another" if problem else str(root)))

    data = Table("Dataset", "Found", "Where", title="Datasets (--data-root or BPC_DATA_ROOT, the cache, a download)",
                 title_justify="left")  # fmt: skip
    for status in describe_datasets(data_root):
        data.add_row(status.name, "yes" if status.found else "no", escape(status.where))

    optional = Table("Part", "Found", "How to get it", title="Optional parts", title_justify="left")
    for package, (what, how) in OPTIONAL.items():
        here = importlib.util.find_spec(package) is not None
        optional.add_row(what, "yes" if here else "no", "" if here else how)
    return [machine, data, optional]
