"""The small image sets of the VAE papers that come without labels, in their official formats and published splits.

Sizes of the splits: Tomczak and Welling 2018, supplementary material.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bpc.data.cifar import open_array
from bpc.data.dataset import ImageParts
from bpc.data.mat import read_mat
from bpc.data.own import read_arrays
from bpc.data.records import UNLABELLED, DefaultSettings, UnlabelledRecord
from bpc.data.sources import RemoteFile, Source, bad_file, reading

__all__ = [
    "CALTECH101_SILHOUETTES",
    "FREY_FACES",
    "HISTOPATHOLOGY",
    "OMNIGLOT",
    "STATIC_MNIST",
    "load_caltech101_silhouettes",
    "load_frey_faces",
    "load_histopathology",
    "load_omniglot",
    "load_static_mnist",
]

SIDE = 28
PIXELS = SIDE * SIDE
AMAT = {
    f"binarized_mnist_{part}.amat": count for part, count in (("train", 50_000), ("valid", 10_000), ("test", 10_000))
}
SILHOUETTES = "caltech101_silhouettes_28_split1.mat"
PICKLE = "histopathology.pkl"
CONVERT = (
    'If you trust its source, convert it: python -c "import pickle, numpy; d = pickle.load(open('
    f"'{PICKLE}', 'rb'), encoding='latin1'); numpy.savez('histopathology.npz', **{{k: numpy.array(d[k]) for k in d}})\""
)

STATIC_MNIST = Source(
    name="static_mnist",
    folders=("static_mnist", "MNIST_static", "binarized_mnist"),
    markers=tuple(AMAT),
    contents=", ".join(AMAT),
    remotes=tuple(
        RemoteFile(url=f"http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/{name}", sha256=sha256)
        for name, sha256 in zip(
            AMAT,
            (
                "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
                "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
                "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
            ),
            strict=True,
        )
    ),
    archive=False,
    megabytes=110,
)

OMNIGLOT = Source(
    name="omniglot",
    folders=("omniglot", "OMNIGLOT"),
    markers=("chardata.mat",),
    contents="chardata.mat (28x28)",
    remotes=(
        RemoteFile(
            url="https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat",
            md5="21ecaf34373511aa7691cf2e0802aa3d",
        ),
    ),
    archive=False,
    megabytes=0,
)

CALTECH101_SILHOUETTES = Source(
    name="caltech101_silhouettes",
    folders=("caltech101_silhouettes", "Caltech101Silhouettes"),
    markers=(SILHOUETTES,),
    contents=SILHOUETTES,
    remotes=(
        RemoteFile(
            url=f"https://people.cs.umass.edu/~marlin/data/{SILHOUETTES}",
            md5="4483e9c14b188fd09937f9ea6f9ea777",
        ),
    ),
    archive=False,
    megabytes=0,
)

FREY_FACES = Source(
    name="frey_faces",
    folders=("frey_faces", "Freyfaces", "freyfaces"),
    markers=("frey_rawface.mat", "frey_faces.npy"),
    contents="frey_rawface.mat (or frey_faces.npy, uint8 (1965, 28, 20))",
    remotes=(),
    archive=False,
    megabytes=0,
    by_hand="get frey_rawface.mat from https://cs.nyu.edu/~roweis/data.html",
)

HISTOPATHOLOGY = Source(
    name="histopathology",
    folders=("histopathology", "HistopathologyGray", "histopathologyGray"),
    markers=("histopathology.npz", "histopathology.safetensors", "histopathology.npy", PICKLE),
    contents="histopathology.npz, .safetensors or .npy, converted from histopathology.pkl",
    remotes=(),
    archive=False,
    megabytes=0,
    by_hand=(
        "get histopathology.pkl.tar.gz from https://github.com/jmtomczak/vae_householder_flow, folder datasets, and unpack it"
    ),
)


def load_static_mnist(folder: Path) -> ImageParts:
    """MNIST with pixels drawn once and for all (Larochelle and Murray 2011): 50,000, 10,000 and 10,000 of 0 and 255.

    Raises:
        DataError: a file is missing, cut short, or holds anything but zeros and ones.
    """
    arrays = {name: _read_amat(folder / name) for name in AMAT}
    # A file cut at an image's end has no other sign of it than a neighbour of the official size.
    if any(len(arrays[name]) == count for name, count in AMAT.items()):
        for name, count in AMAT.items():
            if len(arrays[name]) != count:
                raise bad_file(
                    folder / name,
                    f"{len(arrays[name]):,} images",
                    f"{count:,}, since other files have the official size",
                )
    return ImageParts(*(torch.from_numpy(arrays[name] * np.uint8(255)) for name in AMAT))


def _read_amat(path: Path) -> npt.NDArray[np.uint8]:
    """Text of 784 zeros and ones a line, in rows of the image, as (n, 1, 28, 28)."""
    with reading(path):
        data = path.read_bytes()
    digits = np.frombuffer(data.translate(None, b" \t\r\n"), dtype=np.uint8) - np.uint8(ord("0"))
    if len(digits) == 0 or len(digits) % PIXELS:
        raise bad_file(path, f"{len(digits):,} digits", f"a multiple of {PIXELS}, one for each pixel")
    if digits.max() > 1:  # what lies below "0" wraps around
        raise bad_file(path, "characters other than 0 and 1", "a text of zeros and ones")
    return digits.reshape(-1, 1, SIDE, SIDE)


def load_omniglot(folder: Path, generator: torch.Generator) -> ImageParts:
    """OMNIGLOT as Burda et al. 2016 scaled it: 23,000 to train, 1,345 drawn from `generator` to validate, 8,070 to test.

    Returns:
        float32 (n, 1, 28, 28).

    Raises:
        DataError: chardata.mat is missing or damaged, or ``data`` and ``testdata`` are not (784, n) in [0, 1].
    """
    path = folder / "chardata.mat"
    arrays = read_mat(path, ("data", "testdata"))
    train, test = (_upright(path, name, arrays[name].T, f"({PIXELS}, n)") for name in ("data", "testdata"))
    held = round(len(train) * 1345 / 24_345)
    order = torch.randperm(len(train), generator=generator)
    return ImageParts(train[order[held:].sort().values], train[order[:held].sort().values], test)


def load_caltech101_silhouettes(folder: Path) -> ImageParts:
    """Caltech 101 Silhouettes (Marlin et al. 2010): 4,100, 2,264 and 2,307; 0 and 1 swapped, as by Tomczak and Welling.

    Returns:
        float32 (n, 1, 28, 28), zeros and ones.

    Raises:
        DataError: the file is missing or damaged, or its arrays are not (n, 784) in [0, 1].
    """
    path = folder / SILHOUETTES
    arrays = read_mat(path, ("train_data", "val_data", "test_data"))
    return ImageParts(*(1.0 - _upright(path, name, array, f"(n, {PIXELS})") for name, array in arrays.items()))


def load_frey_faces(folder: Path, generator: torch.Generator) -> ImageParts:
    """Frey Faces: 1,965 frames in an order drawn from `generator`: 1,565 to train, 200 to validate, 200 to test.

    Returns:
        uint8 (n, 1, 28, 20).

    Raises:
        DataError: the file is missing or damaged, or not of bytes: ``ff`` (560, n), or (n, 28, 20) in the .npy file.
    """
    path = folder / "frey_rawface.mat"
    if path.is_file():
        faces, shape = read_mat(path, ("ff",))["ff"], "(560, n)"
        good = faces.ndim == 2 and len(faces) == 560
    else:
        path = folder / "frey_faces.npy"
        faces, shape = open_array(path), "(n, 28, 20)"
        good = faces.ndim == 3 and faces.shape[1:] == (28, 20)
    if not good or faces.dtype != np.uint8:
        raise bad_file(path, f"{faces.dtype} {faces.shape}", f"uint8 {shape}")
    images = torch.from_numpy(np.array(faces if faces.ndim == 3 else faces.T).reshape(-1, 1, 28, 20))
    held = round(len(images) * 200 / 1965)
    if held == 0:
        raise bad_file(path, f"{len(images)} images", "1,965, or enough for three splits")
    order = torch.randperm(len(images), generator=generator)
    test, validation, train = order.split((held, held, len(images) - 2 * held))
    return ImageParts(images[train], images[validation], images[test])


def load_histopathology(folder: Path) -> ImageParts:
    """Grey histopathology patches (Tomczak and Welling 2016): 6,800, 2,000 and 2,000, rounded to 256 levels.

    The official file is a pickle, which can run any program when it is read, so it is not: a converted file has
    the arrays ``training``, ``validation`` and ``test`` (.npz, .safetensors), or all images in that order (.npy).

    Returns:
        uint8 (n, 1, 28, 28).

    Raises:
        DataError: there is only the pickle, or the file is damaged, or an array is not images of 784 pixels, uint8 or
            floats in [0, 1].
    """
    paths = [folder / f"histopathology{suffix}" for suffix in (".npz", ".safetensors", ".npy")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise bad_file(
            folder / PICKLE, "a pickle, not read because it can run any program", HISTOPATHOLOGY.contents, CONVERT
        )
    names = ("training", "validation", "test")
    if path.suffix == ".npy":
        whole = open_array(path)
        held = round(len(whole) * 2000 / 10_800) if whole.ndim else 0
        if held == 0:
            raise bad_file(path, f"{whole.dtype} {whole.shape}", "10,800 images (n, 28, 28)")
        arrays = dict(zip(names, np.split(whole, (len(whole) - 2 * held, len(whole) - held)), strict=True))
    else:
        arrays = read_arrays(path)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise bad_file(path, f"no array {missing[0]}", f"the arrays {', '.join(names)}", "Convert the file again")
    return ImageParts(*(_bytes(path, name, arrays[name]) for name in names))


def _bytes(path: Path, name: str, array: npt.NDArray[Any]) -> Tensor:
    shape = array.shape
    if array.size == 0 or array.size != len(array) * PIXELS:
        raise bad_file(path, f"{name} is {array.dtype} {shape}", f"images of {PIXELS} pixels", "Convert the file again")
    if array.dtype != np.uint8:
        array = np.rint(255.0 * _checked(path, name, array)).astype(np.uint8)
    return torch.from_numpy(np.array(array).reshape(-1, 1, SIDE, SIDE))


def _upright(path: Path, name: str, flat: npt.NDArray[Any], shape: str) -> Tensor:
    """Images (n, 1, 28, 28) from (n, 784), whose pixels run down the columns as MATLAB's do."""
    if flat.ndim != 2 or flat.shape[1] != PIXELS:
        raise bad_file(path, f"{name} holds {flat.size:,} numbers in another shape", shape)
    images = _checked(path, name, flat).reshape(-1, SIDE, SIDE).transpose(0, 2, 1)
    return torch.from_numpy(np.ascontiguousarray(images)[:, None])


def _checked(path: Path, name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The array as float32, if it is finite and in [0, 1]."""
    if array.dtype.kind not in "buif":
        raise bad_file(path, f"{name} is {array.dtype}", "numbers in [0, 1]")
    low, high = float(array.min()), float(array.max())  # NaN if any pixel is
    if not (low >= 0 and high <= 1):
        raise bad_file(path, f"{name} holds values from {low:g} to {high:g}", "finite numbers in [0, 1]")
    return array.astype(np.float32)


_BINARY = DefaultSettings(likelihood="bernoulli")
UNLABELLED.register(
    UnlabelledRecord(
        name="static_mnist",
        source=STATIC_MNIST,
        read=lambda folder, generator, limit: load_static_mnist(folder),
        defaults=_BINARY,
        published={"tomczak2018": "static MNIST"},
    )
)
UNLABELLED.register(
    UnlabelledRecord(
        name="frey_faces",
        source=FREY_FACES,
        read=lambda folder, generator, limit: load_frey_faces(folder, generator),
        published={"tomczak2018": "Frey Faces"},
    )
)
UNLABELLED.register(
    UnlabelledRecord(
        name="omniglot",
        source=OMNIGLOT,
        read=lambda folder, generator, limit: load_omniglot(folder, generator),
        defaults=DefaultSettings(likelihood="bernoulli", components=1000),
        published={"tomczak2018": "OMNIGLOT"},
    )
)
UNLABELLED.register(
    UnlabelledRecord(
        name="caltech101_silhouettes",
        source=CALTECH101_SILHOUETTES,
        read=lambda folder, generator, limit: load_caltech101_silhouettes(folder),
        defaults=_BINARY,
        published={"tomczak2018": "Caltech 101 Silhouettes"},
    )
)
UNLABELLED.register(
    UnlabelledRecord(
        name="histopathology",
        source=HISTOPATHOLOGY,
        read=lambda folder, generator, limit: load_histopathology(folder),
        published={"tomczak2018": "Histopathology"},
    )
)
