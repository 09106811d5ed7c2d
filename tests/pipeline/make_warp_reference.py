"""Make ``data/warp_simpleitk``: files that SimpleITK wrote, and what it makes of them. Needs SimpleITK and NumPy only.

python tests/pipeline/make_warp_reference.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation imports it like this

FOLDER = Path(__file__).parent / "data" / "warp_simpleitk"
CONTRAST = 100.0


def turned(angles: tuple[float, float, float]) -> list[float]:
    """A rotation's direction cosines."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*angles)
    return list(transform.GetMatrix())


def image(size: tuple[int, int, int], spacing: tuple[float, ...], angles: tuple[float, float, float]) -> sitk.Image:
    """Smooth blobs and some noise."""
    rng = np.random.default_rng(5)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in size[::-1]], indexing="ij")
    values = CONTRAST * np.exp(-3 * ((x - 0.2) ** 2 + (y + 0.1) ** 2 + z**2)) + 20 * np.sin(4 * x + 3 * y - 2 * z)
    made = sitk.GetImageFromArray((values + rng.normal(0, 2, values.shape)).astype(np.float32))
    made.SetSpacing(spacing)
    made.SetDirection(turned(angles))
    made.SetOrigin((-20.0, 31.0, -12.5))
    return made


def main() -> None:
    """Write everything."""
    moving = image((23, 20, 17), (1.5, 1.25, 2.0), (0.1, -0.2, 0.15))
    fixed = image((19, 22, 15), (1.75, 1.1, 2.25), (-0.05, 0.1, 0.3))
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, n) for n in fixed.GetSize()[::-1]], indexing="ij"), -1)
    vectors = np.stack([2.5 * np.sin(5 * grid[..., k] + k) * np.cos(3 * grid[..., (k + 1) % 3]) for k in range(3)], -1)
    field = sitk.GetImageFromArray(vectors.astype(np.float32), isVector=True)
    field.CopyInformation(fixed)
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.02, 0.05, -0.03, -0.04, 0.98, 0.02, 0.01, -0.03, 1.05))
    affine.SetTranslation((0.7, -1.2, 0.4))
    affine.SetCenter((-5.0, 40.0, 0.0))
    labels = sitk.Cast(sitk.Clamp(moving / 20 + 2, sitk.sitkFloat32, 0, 6), sitk.sitkUInt8)
    files = {"moving": moving, "fixed": fixed, "field": field, "labels": labels}
    for name, content in files.items():
        sitk.WriteImage(content, str(FOLDER / f"{name}.nii.gz"))
    sitk.WriteTransform(affine, str(FOLDER / "affine.tfm"))
    # Read back, so that SimpleITK too sees what the files hold.
    moving, fixed, labels = (sitk.ReadImage(str(FOLDER / f"{n}.nii.gz")) for n in ("moving", "fixed", "labels"))
    field = sitk.ReadImage(str(FOLDER / "field.nii.gz"), sitk.sitkVectorFloat64)
    affine = sitk.ReadTransform(str(FOLDER / "affine.tfm"))
    by_field = sitk.DisplacementFieldTransform(field)
    both = sitk.CompositeTransform(3)
    both.AddTransform(affine)
    both.AddTransform(by_field)  # the last one added is applied first
    rows = {
        "field_linear": (moving, by_field, sitk.sitkLinear),
        "affine_linear": (moving, affine, sitk.sitkLinear),
        "both_linear": (moving, both, sitk.sitkLinear),
        "both_bspline": (moving, both, sitk.sitkBSpline),
        "both_nearest": (labels, both, sitk.sitkNearestNeighbor),
    }
    answers = {}
    for name, (source, transform, kind) in rows.items():
        outside = -1000.0 if source is moving else 255
        answers[name] = sitk.GetArrayFromImage(sitk.Resample(source, fixed, transform, kind, outside))
    np.savez_compressed(FOLDER / "answers.npz", **answers)


if __name__ == "__main__":
    main()
