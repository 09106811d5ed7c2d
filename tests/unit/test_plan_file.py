"""The plan file and the runtime below compile: hand-made schedules of copy steps, run, damaged, cancelled, forked."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag, NativePlan
from voxelrt.errors import CancelledError, PlanError, ShapeError, UnsupportedError, VoxelRTError
from voxelrt.kernels.common import capi, native
from voxelrt.plan.assembly import pack_on_open
from voxelrt.plan.batch import mark_batched
from voxelrt.plan.file import MAGIC, MINOR, Section, SectionKind, assemble, disassemble
from voxelrt.plan.memory import live_bytes, plan_arena
from voxelrt.plan.schedule import (
    BLOCKED16,
    LINEAR,
    RECORDS,
    WEIGHT_RAW,
    Io,
    Kind,
    Operand,
    Pending,
    Schedule,
    Step,
    StoredWeight,
    Variant,
    Weight,
    check_records,
    dense_strides,
    serialise,
    storage_bytes,
)

F32 = capi.DTYPES["float32"]
COPY = native.kernels()["copy"].pack({"reserved": 0})


def operand(kind: Kind, slot: int, dims: Sequence[int], layout: int = LINEAR) -> Operand:
    return Operand(kind, slot, F32, tuple(dims), dense_strides(dims, layout), layout)


def copy(source: Operand, target: Operand) -> Step:
    return Step("copy", COPY, [source], [target], ("node",))


def round_trip(dims: tuple[int, ...]) -> Variant:
    """Input → blocked → linear → output: three steps, two buffers."""
    blocked, linear = operand(Kind.ARENA, 0, dims, BLOCKED16), operand(Kind.ARENA, 1, dims)
    variant = Variant(
        [Io("x", F32, dims)],
        [Io("y", F32, dims)],
        [
            copy(operand(Kind.INPUT, 0, dims), blocked),
            copy(blocked, linear),
            copy(linear, operand(Kind.OUTPUT, 0, dims)),
        ],
        [storage_bytes(dims, F32, BLOCKED16), storage_bytes(dims, F32)],
    )
    plan_arena(variant)
    return variant


def plan_bytes(variants: list[Variant], weights: Sequence[NDArray[Any]] = ()) -> NDArray[np.uint8]:
    raw, places, end = [], [], 0
    for array in weights:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        raw.append(np.pad(data, (0, -data.size % 64)))
        places.append(StoredWeight(WEIGHT_RAW, end, data.size, 0, data.size))
        end += raw[-1].size
    section = serialise(Schedule([Weight(w) for w in weights], variants), places)
    return assemble(
        [
            Section(SectionKind.WEIGHTS, np.concatenate(raw) if raw else np.zeros(0, np.uint8)),
            Section(SectionKind.COMPILED, np.frombuffer(section, np.uint8), capi.target()),
        ]
    )


def run(plan: NativePlan, x: NDArray[Any]) -> NDArray[Any]:
    out = np.full_like(x, np.nan)
    plan.run([x], [out])
    return out


def test_records_have_the_librarys_sizes() -> None:
    check_records()
    assert RECORDS["OperandRecord"].itemsize == capi.library().voxelrt_record_size(b"OperandRecord")
    assert capi.library().voxelrt_record_size(b"NoRecord") == 0


@pytest.mark.parametrize("dims", [(1, 1, 1, 1, 1), (1, 20, 3, 4, 5), (2, 16, 1, 7, 2), (1, 0, 2, 2, 2)])
def test_a_plan_runs(dims: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random(dims, np.float32)
    np.testing.assert_array_equal(run(NativePlan(plan_bytes([round_trip(dims)])), x), x)


def test_two_variants_choose_by_shape_and_share_one_arena() -> None:
    plan = NativePlan(plan_bytes([round_trip((1, 3, 2, 2, 2)), round_trip((1, 3, 4, 4, 4))]))
    for size in (2, 4, 2):
        x = np.random.default_rng(size).random((1, 3, size, size, size), np.float32)
        np.testing.assert_array_equal(run(plan, x), x)
    with pytest.raises(ShapeError, match=r"\(1, 3, 5, 5, 5\).*compiled for.*\(1, 3, 2, 2, 2\)"):
        run(plan, np.zeros((1, 3, 5, 5, 5), np.float32))


def test_the_batch_is_a_run_time_bound() -> None:
    one, two = round_trip((1, 5, 2, 3, 4)), round_trip((2, 5, 2, 3, 4))
    assert mark_batched(one, two)
    one.batch = (1, 4)
    plan_arena(one)
    plan = NativePlan(plan_bytes([one]))
    for batch in (1, 4, 2):
        x = np.random.default_rng(batch).random((batch, 5, 2, 3, 4), np.float32)
        np.testing.assert_array_equal(run(plan, x), x)
    with pytest.raises(ShapeError):
        run(plan, np.zeros((5, 5, 2, 3, 4), np.float32))


def test_a_batch_that_changes_more_than_first_dims_is_not_marked() -> None:
    assert not mark_batched(round_trip((1, 5, 2, 3, 4)), round_trip((1, 5, 2, 3, 5)))


def test_a_pending_norm_is_materialised_by_copy() -> None:
    dims, rng = (2, 20, 2, 3, 4), np.random.default_rng(3)
    scale, shift = rng.standard_normal((2, 20)).astype("f4"), rng.standard_normal((2, 20)).astype("f4")
    weights = [operand(Kind.WEIGHT, i, (2, 20)) for i in range(2)]
    blocked = operand(Kind.ARENA, 0, dims, BLOCKED16)
    variant = Variant(
        [Io("x", F32, dims)],
        [Io("y", F32, dims)],
        [
            copy(operand(Kind.INPUT, 0, dims), blocked),
            copy(replace(blocked, pending=Pending(weights[0], weights[1], 0.1)), operand(Kind.OUTPUT, 0, dims)),
        ],
        [storage_bytes(dims, F32, BLOCKED16)],
    )
    plan_arena(variant)
    x = rng.standard_normal(dims).astype("f4")
    y = x * scale[:, :, None, None, None] + shift[:, :, None, None, None]
    got = run(NativePlan(plan_bytes([variant], [scale, shift])), x)
    np.testing.assert_allclose(got, np.where(y >= 0, y, 0.1 * y), rtol=1e-5, atol=1e-6)


def test_callers_arrays_may_have_gaps() -> None:
    plan = NativePlan(plan_bytes([round_trip((2, 3, 4, 5, 6))]))
    x = np.random.default_rng(1).random((6, 5, 4, 3, 2), np.float32).T
    out = np.full((2, 3, 4, 5, 12), np.nan, np.float32)[..., ::2]
    plan.run([x], [out])
    np.testing.assert_array_equal(out, x)


def test_lifetimes_share_memory() -> None:
    dims = (1, 1, 1, 1, 1024)
    arena = [operand(Kind.ARENA, i, dims) for i in range(4)]
    steps = [copy(operand(Kind.INPUT, 0, dims), arena[0])]
    steps += [copy(a, b) for a, b in itertools.pairwise(arena)]
    steps.append(copy(arena[3], operand(Kind.OUTPUT, 0, dims)))
    variant = Variant([Io("x", F32, dims)], [Io("y", F32, dims)], steps, [4096] * 4)
    plan_arena(variant)
    assert variant.arena_bytes == live_bytes(variant) == 2 * 4096
    plan_arena(variant, share=False)
    assert variant.arena_bytes == 4 * 4096


def test_the_cancel_flag_stops_between_steps() -> None:
    plan = NativePlan(plan_bytes([round_trip((1, 1, 2, 2, 2))]))
    flag, seen = CancelFlag(), []

    def progress(step: int, steps: int) -> None:
        seen.append((step, steps))
        if step == 1:
            flag.set()

    x = np.zeros((1, 1, 2, 2, 2), np.float32)
    with pytest.raises(CancelledError, match="after 2 of 3 steps"):
        plan.run([x], [np.empty_like(x)], cancel=flag, progress=progress)
    assert seen == [(0, 3), (1, 3)]
    np.testing.assert_array_equal(run(plan, x), x)


def test_an_exception_in_the_progress_callback_comes_out() -> None:
    plan = NativePlan(plan_bytes([round_trip((1, 1, 2, 2, 2))]))

    def progress(step: int, steps: int) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        plan.run([np.zeros((1, 1, 2, 2, 2), "f4")], [np.zeros((1, 1, 2, 2, 2), "f4")], progress=progress)


def test_a_child_after_fork_runs_the_plan() -> None:
    plan = NativePlan(plan_bytes([round_trip((1, 40, 8, 8, 8))]), pool=native.Pool(3))
    x = np.random.default_rng(0).random((1, 40, 8, 8, 8), np.float32)
    run(plan, x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(run(plan, x), x) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(run(plan, x), x)


def test_an_unknown_kernel_version_is_named() -> None:
    variant = round_trip((1, 1, 1, 1, 1))
    data = plan_bytes([variant])
    text = data.tobytes().replace(b"copy\0", b"kopy\0")
    data[:] = np.frombuffer(text, np.uint8)
    with pytest.raises(UnsupportedError, match="kopy"):
        NativePlan(data, checksums=False)
    with pytest.raises(PlanError, match="checksum of the compiled section"):
        NativePlan(data)


@pytest.mark.parametrize("threads", [1, 3])
def test_checksums_of_large_sections_are_made_in_pieces(threads: int) -> None:
    weights = np.random.default_rng(0).random((9 << 18) + 5, np.float32)  # two pieces of 4 MiB and a rest
    data = plan_bytes([round_trip((1, 1, 1, 1, 1))], [weights])
    pool = native.Pool(threads)
    NativePlan(data, pool=pool)
    for place in (4096, 4095 + (4 << 20), 4096 + (4 << 20), 4096 + (8 << 20), data.size // 64 * 64 - 4096):
        data[place] ^= 1
        with pytest.raises(PlanError, match=r"checksum of the (weights|compiled section)"):
            NativePlan(data, pool=pool)
        data[place] ^= 1
    NativePlan(data, pool=pool)


def test_a_plan_is_opened_while_another_runs_on_the_same_threads() -> None:
    pool, running, opened = native.Pool(2), threading.Event(), threading.Event()
    first = NativePlan(plan_bytes([round_trip((1, 1, 2, 2, 2))]), pool=pool)
    file = plan_bytes([round_trip((1, 1, 1, 1, 1))])
    x = np.ones((1, 1, 2, 2, 2), np.float32)

    def progress(step: int, steps: int) -> None:
        running.set()
        assert opened.wait(60)

    thread = threading.Thread(target=lambda: first.run([x], [np.empty_like(x)], progress=progress))
    thread.start()
    assert running.wait(60)
    NativePlan(file, pool=pool)
    opened.set()
    thread.join()


def test_no_section_for_this_machine_lists_those_present() -> None:
    section = Section(SectionKind.COMPILED, np.zeros(144, np.uint8), "other-machine")
    with pytest.raises(PlanError, match="other-machine"):
        NativePlan(assemble([section]))


@pytest.mark.parametrize("cut", [1, 10, 63, 64, 200, 1000])
def test_a_truncated_plan_is_refused(cut: int) -> None:
    data = native.aligned_empty((cut,), np.uint8)
    data[:] = plan_bytes([round_trip((1, 1, 2, 2, 2))])[:cut]
    with pytest.raises(PlanError):
        NativePlan(data)
    with pytest.raises(PlanError):
        disassemble(data)


def test_a_foreign_and_a_newer_file_are_named() -> None:
    data = plan_bytes([round_trip((1, 1, 2, 2, 2))])
    foreign = data.copy()
    foreign[:8] = np.frombuffer(b"\x89PNG\r\n\x1a\n", np.uint8)
    newer = data.copy()
    newer[8] = 9
    for file, words in ((foreign, "not a VoxelRT plan"), (newer, rf"format is 9\.{MINOR}")):
        aligned = native.aligned_empty((file.size,), np.uint8)
        aligned[:] = file
        with pytest.raises(PlanError, match=words):
            NativePlan(aligned)
        with pytest.raises(PlanError, match=words):
            disassemble(aligned)
    assert bytes(data[:8]) == MAGIC


def _changed(data: NDArray[np.uint8], minor: int, kind: int) -> NDArray[np.uint8]:
    """The file as another minor version, its first section of another kind, checksums right."""
    head, record = RECORDS["FileHeader"], RECORDS["SectionRecord"]
    header, table = np.frombuffer(data[:64].tobytes(), head).copy(), data[64:].tobytes()
    rows = np.frombuffer(table[: int(header["section_count"][0]) * record.itemsize], record).copy()
    header["minor"], header["crc"], rows["kind"][0] = minor, 0, kind
    header["crc"] = capi.crc32c(rows.tobytes(), capi.crc32c(header.tobytes()))
    made: NDArray[np.uint8] = native.aligned_empty((data.size,), np.uint8)
    made[:] = np.frombuffer(header.tobytes() + rows.tobytes() + table[rows.nbytes :], np.uint8)
    return made


def test_what_a_newer_minor_version_added_is_passed_over_or_named() -> None:
    data = plan_bytes([round_trip((1, 1, 2, 2, 2))], [np.ones((1, 1), np.float32)])
    assert [s.kind for s in disassemble(_changed(data, MINOR + 1, 77))] == [SectionKind.COMPILED]
    with pytest.raises(PlanError, match="section kind 77"):
        disassemble(_changed(data, MINOR, 77))
    # Weights by another name: what the schedule reads is not there. The error says whose fault that may be.
    with pytest.raises(PlanError, match=rf"newer than this library's 0\.{MINOR}"):
        NativePlan(_changed(data, MINOR + 1, 77))
    with pytest.raises(PlanError, match=r"is damaged: [a-z ]+$"):
        NativePlan(_changed(data, MINOR, 77))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_of_the_schedule_reaches_memory(data: st.DataObject) -> None:
    """Bytes are changed and the checksums ignored: the plan is refused, or runs inside its own memory."""
    dims = (1, 3, 2, 2, 2)
    file = plan_bytes([round_trip(dims)], [np.ones((1, 3), np.float32)])
    start = 64 + 2 * 64
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(start, file.size - 1))] = data.draw(st.integers(0, 255))
    try:
        plan = NativePlan(file, checksums=False)
        for inputs, outputs, _, _ in plan.variants:
            if all(np.prod(io.dims, dtype=np.float64) < 1e6 for io in (*inputs, *outputs)):
                arrays = [np.zeros(io.dims, capi.numpy_dtype(io.dtype)) for io in (*inputs, *outputs)]
                plan.run(arrays[: len(inputs)], arrays[len(inputs) :])
    except (VoxelRTError, MemoryError, UnicodeDecodeError):
        pass


def test_sections_come_back(tmp_path: Path) -> None:
    file = plan_bytes([round_trip((1, 1, 1, 1, 1))])
    kinds = [s.kind for s in disassemble(file)]
    assert kinds == [SectionKind.WEIGHTS, SectionKind.COMPILED]
    assert [s.kind for s in pack_on_open(disassemble(file))] == kinds
