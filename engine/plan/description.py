"""plan.describe(): what runs where and why, as text a person can read."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelrt.errors import PlanError
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.conv3d.algorithm import SHARED
from voxelrt.plan.file import SectionKind
from voxelrt.plan.gpu_steps import EngineStep, GpuPart
from voxelrt.plan.schedule import BLOCKED16, RECORDS, TABLES, Kind

if TYPE_CHECKING:
    from voxelrt.measure.profile import Profile
    from voxelrt.plan.plan import Plan


def tables(plan: Plan) -> dict[str, Any]:
    """The tables of the compiled section for this machine, as NumPy record arrays."""
    data = np.asarray(plan.section(SectionKind.COMPILED, capi.target()))
    header = np.frombuffer(bytes(data[: RECORDS["CompiledHeader"].itemsize]), RECORDS["CompiledHeader"])[0]
    kinds = {
        "weights": "WeightRecord",
        "operands": "OperandRecord",
        "steps": "StepRecord",
        "ios": "IoRecord",
        "variants": "VariantRecord",
    }
    found: dict[str, Any] = {}
    for name in TABLES:
        dtype = RECORDS[kinds[name]] if name in kinds else np.dtype("<u4" if name == "names" else np.uint8)
        start, count = int(header[name]["offset"]), int(header[name]["count"])
        found[name] = np.frombuffer(bytes(data[start : start + count * dtype.itemsize]), dtype)
    return found


def _string(found: dict[str, Any], offset: int) -> str:
    data = found["strings"][int(offset) :].tobytes()
    return str(data[: data.index(b"\0")].decode())


def _shape(record: Any) -> str:
    dims = "×".join(str(int(d)) for d in record["dims"][: record["rank"]])
    layout = " blocked" if record["layout"] == BLOCKED16 else ""
    pending = " pending" if record["pending_scale"] >= 0 else ""
    return f"{dims}{layout}{pending}"


def step_rows(plan: Plan, variant: int = 0) -> list[dict[str, Any]]:
    """One row a step: kernel, nodes, result, flops, bytes; for describe, profiles and ``--json``."""
    found = tables(plan)
    chosen = found["variants"][variant]
    rows = []
    for step in found["steps"][chosen["first_step"] : chosen["first_step"] + chosen["steps"]]:
        first = int(step["first_operand"])
        operands = found["operands"][first : first + int(step["inputs"]) + int(step["outputs"])]
        results = [o for o in operands[int(step["inputs"]) :] if o["kind"] != Kind.NONE]
        names = found["names"][int(step["first_name"]) : int(step["first_name"]) + int(step["name_count"])]
        kernel = _string(found, step["kernel"])
        start = int(step["params_offset"])
        rows.append(
            {
                "kernel": kernel,
                "algorithm": _algorithm(kernel, bytes(found["params"][start : start + int(step["params_bytes"])])),
                "nodes": [_string(found, n) for n in names],
                "result": ", ".join(_shape(o) for o in results),
                "flops": int(step["flops"]),
                "bytes": int(step["bytes"]),
            }
        )
    return rows


def memory_of(plan: Plan, variant: int = 0) -> dict[str, int]:
    """Bytes: the arena of a run, the weights as the network has them, and as the kernels read them."""
    found = tables(plan)
    sizes = {"arena": int(found["variants"][variant]["arena_bytes"])}
    sections = (("weights", SectionKind.WEIGHTS, ""), ("packed weights", SectionKind.PACKED, capi.target()))
    for name, kind, target in sections:
        with suppress(PlanError):  # a plan may be saved without what it can pack when it is opened
            sizes[name] = len(np.asarray(plan.section(kind, target)))
    return sizes


def _algorithm(kernel: str, params: bytes) -> str:
    """How a step computes, where a kernel knows several ways."""
    if kernel in ("conv3d.direct", "conv3d.grouped", "conv3d.depthwise", "conv_transpose3d.direct"):
        return "direct"
    if kernel != "conv3d.winograd":
        return ""
    values = native.kernels()[kernel].unpack(params)
    tile, block = (",".join(str(int(v)) for v in values[name]) for name in ("tile", "block"))
    return f"F({tile}){' shared' if values['algorithm'] == SHARED else ''}, blocks of {block}"


def gpu_line(part: GpuPart) -> str:
    """What a plan holds for GPUs, in one line."""
    states = ", ".join(f"{name} ({state})" for name, state in part.architectures.items())
    return f"for GPUs: {part.precision}, {part.library}; {states}"


def _gpu_lines(part: GpuPart) -> list[str]:
    lines = [gpu_line(part)]
    for name, (least, usual, most) in part.profiles.items():
        shapes = [usual] if least == most else [least, usual, most]
        lines.append(f"  {name}: {' to '.join('×'.join(map(str, shape)) for shape in shapes)}")
    for step in part.steps:
        what = "" if isinstance(step, EngineStep) else f" {step.op} ({step.node}, {len(step.launches)} launches)"
        lines.append(f"  {step.backend}{what}: {', '.join(step.inputs)} -> {', '.join(step.outputs)}")
    return lines


def describe(plan: Plan, profile: Profile | None = None) -> str:
    """Every node's place and why, the steps (with what they reached, where they were timed), memory and parity."""
    info = plan.info
    lines = [f"{info.name}: {info.precision}, sections for {', '.join(plan.targets)}"]
    found = tables(plan)
    for index, (inputs, outputs, batch, _) in enumerate(plan.variants):
        arena = int(found["variants"][index]["arena_bytes"])
        ios = [f"{io.name} {'×'.join(map(str, io.dims))} {capi.numpy_dtype(io.dtype)}" for io in (*inputs, *outputs)]
        span = f", batch {batch[0]} to {batch[1]}" if batch != (1, 1) else ""
        lines.append(f"variant {index}: {', '.join(ios)}{span}; arena {arena / 2**20:.1f} MiB")
    if "gpu" in info.settings:
        lines += _gpu_lines(GpuPart.from_json(info.settings["gpu"]))
    lines.append("nodes:")
    counts = Counter(p.backend for p in info.placements)
    lines[-1] += " " + ", ".join(f"{count} {backend}" for backend, count in counts.items())
    lines += [f"  {p.node} ({p.op}): {p.backend}{f': {p.why}' if p.why else ''}" for p in info.placements]
    if doubts := info.settings.get("tuning_doubts"):
        lines.append(f"tuning: {doubts}")
    lines.append("steps of variant 0:")
    for number, row in enumerate(step_rows(plan)):
        work = f"{row['flops'] / 1e9:.2f} GFLOP" if row["flops"] else f"{row['bytes'] / 1e6:.1f} MB"
        how = f"  [{row['algorithm']}]" if row["algorithm"] else ""
        if profile is not None:
            work += f"{profile.steps[number].text():>44s}"
        names = " + ".join(row["nodes"])
        lines.append(f"  {number:3d} {row['kernel']:24s} {row['result']:34s} {work:>14s}  {names}{how}")
    if profile is not None:
        lines.append(f"ceilings: {profile.ceilings}")
    lines.append("parity:")
    for line in info.parity:
        figure = f": relative {line.relative:.2e}, maximum {line.maximum:.2e}" if line.relative is not None else ""
        against = f" against {line.against}" if line.against else ""
        lines.append(f"  {line.name}: {line.status}{against}{figure}")
    return "\n".join(lines)
