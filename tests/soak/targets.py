"""The fuzz targets: for each reader a function on a path, and sound seeds."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import onnx_ir as ir
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    UltrasoundImageStorage,
    generate_uid,
)

from tests.soak.model_targets import Target, network, state_dict


def _nifti() -> Target:
    from voxelrt.io import read_nifti

    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1.0, 2.0, 3.0, 1.0]))
    plain = image.to_bytes()
    return lambda path: _ignore(read_nifti(path)), [
        plain,
        gzip.compress(plain),
        nib.Nifti2Image.from_image(image).to_bytes(),
    ]


def _dicom() -> Target:
    from tests.phantoms import dicom_slice, octants
    from tests.unit.test_dicom_pictures import cine, radiograph, region
    from tests.unit.test_dicom_pixels import csa, mosaic
    from tests.unit.test_dicom_study import enhanced
    from voxelrt.io import open_dicom, read_image

    def saved(data: FileDataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
        data.file_meta.TransferSyntaxUID = syntax
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=["seed"])
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, data, enforce_file_format=True)
        return stream.getvalue()

    def plane() -> FileDataset:
        return dicom_slice(octants()[0], np.zeros(3), BitsStored=12, HighBit=11, FrameOfReferenceUID="1.2.4")

    table = Dataset()
    table.LUTDescriptor = [16, 0, 12]
    table.add_new("LUTData", "OW", bytes(range(32)))
    pixels = np.arange(2 * 5 * 6 * 3, dtype=np.uint8).reshape(2, 5, 6, 3)
    palette = dicom_slice(pixels[0, ..., 0], np.zeros(3), SOPClassUID=UltrasoundImageStorage, Modality="US")
    palette.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        palette.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        palette.add_new(f"{colour}PaletteColorLookupTableData", "OW", bytes(512))
    packed = plane()
    packed.compress(RLELossless, generate_instance_uid=False)
    plain = saved(plane())
    seeds = [
        plain,
        saved(plane(), ImplicitVRLittleEndian),
        saved(plane(), DeflatedExplicitVRLittleEndian),
        saved(packed, RLELossless),
        saved(enhanced(octants())),
        saved(mosaic(csa(NumberOfImagesInMosaic=["6"], SliceNormalVector=["0.0", "0.0", "1.0"]))),
        saved(
            radiograph(WindowCenter=40, WindowWidth=400, PatientOrientation=["L", "F"], ImagerPixelSpacing=[0.1, 0.1])
        ),
        saved(radiograph(VOILUTSequence=Sequence([table]), VOILUTFunction="SIGMOID")),
        saved(cine(pixels, SequenceOfUltrasoundRegions=Sequence([region((0, 0, 5, 4), (0.1, 0.1))]))),
        saved(palette),
    ]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a/IM0", plain)
        opened.writestr("notes.txt", b"text " * 40)

    def run(path: Path) -> None:
        for series in open_dicom(path).series:
            _ignore(series.title)
        _ignore(read_image(path, repair=True))
        _ignore(read_image(path, repair=True, displayed=True))

    return run, [*seeds, archive.getvalue()]


def _picture() -> Target:
    import tifffile
    from PIL import Image as Pillow

    from voxelrt.io import read_picture

    colours = np.arange(20 * 30 * 3, dtype=np.uint16).astype(np.uint8).reshape(20, 30, 3)
    grey = Pillow.fromarray(colours[..., 0])

    def packed(picture: Pillow.Image, kind: str) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, kind)
        return stream.getvalue()

    def paged(array: Any, **options: Any) -> bytes:
        stream = io.BytesIO()
        tifffile.imwrite(stream, array, **options)
        return stream.getvalue()

    seeds = [packed(picture, "PNG") for picture in (grey, Pillow.fromarray(colours), grey.convert("P"))]
    seeds += [packed(picture, "JPEG") for picture in (grey, Pillow.fromarray(colours))]
    seeds += [
        paged(colours, photometric="rgb"),
        paged(colours[..., 0], compression="zlib", resolution=(200, 200), resolutionunit=3),
        paged(np.stack([colours[..., 0]] * 3), photometric="minisblack", tile=(16, 16)),
        paged(colours[..., 0], imagej=True, metadata={"spacing": 2.0, "unit": "micron"}),
        paged(colours, photometric="rgb", bigtiff=True, tile=(16, 16), compression="zlib"),
    ]
    return lambda path: _ignore(read_picture(path)), seeds


def _onnx() -> Target:
    from voxelrt.models.formats.onnx import load_onnx

    return lambda path: _ignore(load_onnx(path)), [_network().SerializeToString()]


def _tensorflow() -> Target:
    from tests.models.tensorflow_cases import cases
    from voxelrt.models.formats.tensorflow import import_graph

    seeds = [case["graph"].tobytes() for case in list(cases().values())[:20]]
    return lambda path: _ignore(import_graph(path.read_bytes())), seeds


def _safetensors() -> Target:
    from tests.models.test_safetensors import seeds
    from voxelrt.models.formats.safetensors import load_safetensors

    return lambda path: _ignore(load_safetensors(path)), seeds()


def _torch_archive() -> Target:
    from tests.models.test_torch import stored
    from voxelrt.models.formats import torch_archive

    archives = [stored(kind).tobytes() for kind in ("pt2", "pt2_open_batch", "torchscript", "state_dict")]
    with tempfile.TemporaryDirectory() as folder:
        seed = Path(folder) / "seed.pt2"
        seed.write_bytes(archives[0])
        parts = torch_archive.read_entries(seed)
    texts = [name for name in parts if name.endswith(".json")]

    def run(path: Path) -> None:
        data = path.read_bytes()
        if not data.startswith(b"PK"):  # a text of the archive, wrapped again: a checksum would hide it
            part = next((name for name in texts if parts[name][:12] == data[:12]), texts[-1])
            path.write_bytes(torch_archive.archive_of({**parts, part: data}).getvalue())
        kind = torch_archive.exported_program if b"model.json" in path.read_bytes() else torch_archive.script
        kind(path)

    return run, archives + [parts[name] for name in texts]


def _checkpoint() -> Target:
    from voxelrt.models.formats.torch_checkpoint import Checkpoint, TensorPlace

    folders = Path(__file__).parents[1] / "models" / "data" / "nnunet_folders.tar.xz"
    with tarfile.open(folders) as archive:
        member = next(m for m in archive.getmembers() if "Flat" in m.name and m.name.endswith(".pth"))
        stream = archive.extractfile(member)
        sound = stream.read() if stream is not None else b""
    with zipfile.ZipFile(io.BytesIO(sound)) as parts:
        pickled = next(parts.read(name) for name in parts.namelist() if name.endswith("/data.pkl"))

    def run(path: Path) -> None:
        data = path.read_bytes()
        if not data.startswith(b"PK"):  # the pickle alone, wrapped again: a checksum would hide it
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", data)
        with Checkpoint(path) as checkpoint:
            weights = checkpoint.content.get("network_weights") if isinstance(checkpoint.content, dict) else None
            for name, place in (weights if isinstance(weights, dict) else {}).items():
                if isinstance(place, TensorPlace):
                    checkpoint.tensor(place, str(name))

    return run, [sound, pickled]


def _nnunet() -> Target:
    """The texts and the pickle of a result folder; the first byte says which file an input is."""
    from voxelrt.models.formats.nnunet import load_nnunet

    archive = Path(__file__).parents[1] / "pipeline" / "data" / "nnunet_meaning.tar.xz"
    folder = Path(tempfile.mkdtemp(prefix="voxelrt-fuzz-"))
    with tarfile.open(archive) as stored:
        wanted = [member for member in stored.getmembers() if member.name.startswith("postprocessed/")]
        stored.extractall(folder, wanted, filter="data")
    (training,) = (folder / "postprocessed").glob("nnUNetTrainer__*")
    names = ("plans.json", "dataset.json", "postprocessing.pkl", "postprocessing.json")
    sound = {name: (training / name).read_bytes() for name in names}

    def run(path: Path) -> None:
        data = path.read_bytes()
        name = names[data[0] % len(names) if data else 0]
        for other, content in sound.items():
            (training / other).write_bytes(data[1:] if other == name else content)
        if name == "postprocessing.json":  # it is read where there is no pickle
            (training / "postprocessing.pkl").unlink()
        _ignore(load_nnunet(training))

    return run, [bytes([index]) + sound[name] for index, name in enumerate(names)]


def _recipe() -> Target:
    from voxelrt.models.recipe import SHIPPED, load_recipe

    def run(path: Path) -> None:
        load_recipe(path.rename(path.with_suffix(".toml")))

    return run, [path.read_bytes() for path in SHIPPED.glob("*.toml")]


def _composite() -> Target:
    """A recipe that merges models, beside a result folder that it may name."""
    from voxelrt.models.load import load

    archive = Path(__file__).parents[1] / "models" / "data" / "nnunet_folders.tar.xz"
    folder = Path(tempfile.mkdtemp(prefix="voxelrt-fuzz-"))
    with tarfile.open(archive) as stored:
        stored.extractall(folder, [member for member in stored.getmembers() if "Flat" in member.name], filter="data")
    (training,) = folder.glob("*Flat*")
    labels = json.loads(next(training.glob("nnUNetTrainer*/dataset.json")).read_text())["labels"]
    classes = ", ".join(f"{name} = {at}" for at, name in enumerate((n for n in labels if n != "background"), 1))
    values = "\n".join(f'[[labels]]\nvalue = {at}\nname = "{at}"' for at in range(1, len(labels)))
    model = f'[[models]]\npath = "{training.name}"\nclasses = {{ {classes} }}\n'
    grid = '[grid]\norientation = "RAS"\nspacing_mm_xyz = [1.5, 1.5, 1.5]\n'
    crop = f'[crop]\npath = "{training.name}"\nclasses = ["{classes.split()[0]}"]\nmargin_mm = 20\n'
    texts = (f'name = "both"\n{part}{model}{values}\n' for part in ("", grid, grid + crop, model))

    def run(path: Path) -> None:
        _ignore(load(path.rename(folder / "input.toml")))

    return run, [text.encode() for text in texts]


def _plan() -> Target:
    import voxelrt as vx
    from voxelrt.plan.plan import Plan

    plan = vx.compile(ir.from_proto(_network()), fallback="error", verify=False)
    seeds = [np.asarray(plan._file).tobytes()]

    def run(path: Path) -> None:
        # Checksums off: a fuzzer cannot forge them, an attacker can.
        opened = Plan.open(path, checksums=False)
        shapes = [io.dims for variant in opened.variants for io in (*variant[0], *variant[1])]
        if all(np.prod(shape, dtype=np.float64) < 1e6 for shape in shapes):
            opened.run({io.name: np.zeros(io.dims, np.float32) for io in opened.inputs})

    return run, seeds


def _network() -> onnx.ModelProto:
    from voxelrt.models.architectures.unet3d import build_unet3d

    model = build_unet3d(features=(4, 8), patch=(8, 8, 8), classes=2, channels=1, seed=0)
    return ir.to_proto(model)


def _ignore(value: object) -> None:
    del value


TARGETS: dict[str, Callable[[], Target]] = {
    "checkpoint": _checkpoint,
    "composite": _composite,
    "dicom": _dicom,
    "network": network,
    "nifti": _nifti,
    "nnunet": _nnunet,
    "onnx": _onnx,
    "picture": _picture,
    "plan": _plan,
    "recipe": _recipe,
    "safetensors": _safetensors,
    "state_dict": state_dict,
    "tensorflow": _tensorflow,
    "torch_archive": _torch_archive,
}
