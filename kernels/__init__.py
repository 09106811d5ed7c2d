"""Kernels usable alone, on arrays: one folder per op.

``from voxelrt.kernels import conv3d`` gives the op's *function*. It has the name of the op's folder, so the names are
bound here, eagerly: whatever is imported first, ``voxelrt.kernels.conv3d`` stays the function (importing
``voxelrt.kernels.conv3d.oracle`` later does not put the folder in its place). Backends load with their first call.
"""

from __future__ import annotations

from voxelrt.kernels.anisotropic_diffusion import anisotropic_diffusion
from voxelrt.kernels.bilateral import bilateral
from voxelrt.kernels.ceiling import ceiling
from voxelrt.kernels.conv3d import conv3d
from voxelrt.kernels.conv_transpose3d import conv_transpose3d
from voxelrt.kernels.copy import copy
from voxelrt.kernels.curvature_flow import curvature_flow
from voxelrt.kernels.denoise import denoise
from voxelrt.kernels.elementwise import elementwise
from voxelrt.kernels.gather import gather
from voxelrt.kernels.gaussian import gaussian
from voxelrt.kernels.integrate import integrate
from voxelrt.kernels.jacobian import jacobian
from voxelrt.kernels.lstm import gru, lstm, rnn
from voxelrt.kernels.matmul import matmul
from voxelrt.kernels.mdlstm import mdlstm
from voxelrt.kernels.median import median
from voxelrt.kernels.nms3d import nms3d
from voxelrt.kernels.non_local_means import non_local_means
from voxelrt.kernels.non_local_means_blocks import non_local_means_blocks
from voxelrt.kernels.norm3d import layer_norm, norm3d
from voxelrt.kernels.pad import pad
from voxelrt.kernels.pool3d import pool3d
from voxelrt.kernels.preprocess import preprocess
from voxelrt.kernels.quantize import dequantize, quantize
from voxelrt.kernels.reduce import reduce
from voxelrt.kernels.resample3d import resample3d
from voxelrt.kernels.resample_argmax import resample_argmax
from voxelrt.kernels.resize import resize
from voxelrt.kernels.softmax import softmax
from voxelrt.kernels.spline_prefilter import spline_prefilter
from voxelrt.kernels.stitch import stitch
from voxelrt.kernels.topk import topk
from voxelrt.kernels.total_variation import total_variation
from voxelrt.kernels.warp3d import grid_sample, warp3d
from voxelrt.kernels.warp3d.fields import compose, invert, resample_field, warp_points

__all__ = [
    "anisotropic_diffusion",
    "bilateral",
    "ceiling",
    "compose",
    "conv3d",
    "conv_transpose3d",
    "copy",
    "curvature_flow",
    "denoise",
    "dequantize",
    "elementwise",
    "gather",
    "gaussian",
    "grid_sample",
    "gru",
    "integrate",
    "invert",
    "jacobian",
    "layer_norm",
    "lstm",
    "matmul",
    "mdlstm",
    "median",
    "nms3d",
    "non_local_means",
    "non_local_means_blocks",
    "norm3d",
    "pad",
    "pool3d",
    "preprocess",
    "quantize",
    "reduce",
    "resample3d",
    "resample_argmax",
    "resample_field",
    "resize",
    "rnn",
    "softmax",
    "spline_prefilter",
    "stitch",
    "topk",
    "total_variation",
    "warp3d",
    "warp_points",
]
