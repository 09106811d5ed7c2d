"""The interpreter against plain Python: arithmetic, conversions, tensor cores, exchanges, branches, copies, memory."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulation.ptx import tensor_cores
from tests.emulation.ptx.errors import (
    BarrierError,
    OutOfBoundsError,
    RaceError,
    UninitialisedError,
    UnknownInstructionError,
)
from tests.emulation.ptx.instructions import Kernel
from tests.emulation.ptx.machine import Machine
from tests.emulation.ptx.memory import GlobalMemory
from tests.emulation.ptx.parse import parse

RNG = np.random.default_rng(11)
TYPES = {"u32": np.uint32, "s32": np.int32, "u64": np.uint64, "s64": np.int64, "f32": np.float32, "f64": np.float64}
TYPES |= {"b32": np.uint32, "b64": np.uint64, "f16": np.float16, "b16": np.uint16, "u16": np.uint16, "s16": np.int16}


def run(body: str, *inputs: Any, output: Any, threads: int = 32, shared: int = 0, seed: int = 0) -> Any:
    """Run a body that finds its inputs' addresses in %in0 ... and its output's in %out; %i is the thread."""
    names = [*(f"in{n}" for n in range(len(inputs))), "out"]
    parameters = ", ".join(f".param .u64 p_{name}" for name in names)
    loads = "".join(f"ld.param.u64 %{name}, [p_{name}];\n" for name in names)
    text = f""".version 8.0
.target sm_80
.address_size 64
.visible .entry k({parameters})
{{
.reg .pred %p<8>; .reg .b16 %h<16>; .reg .b32 %r<32>; .reg .b64 %d<32>; .reg .b64 %in<4>; .reg .b64 %out;
.reg .b32 %i; .reg .b64 %j;
.shared .align 16 .b8 tile[{max(shared, 16)}];
{loads}
mov.u32 %i, %tid.x;
cvt.u64.u32 %j, %i;
{body}
ret;
}}"""
    arrays = [np.ascontiguousarray(a) for a in inputs]
    unwritten = (b"\xff" * output.nbytes, np.zeros(output.nbytes, bool))
    memory = GlobalMemory([*((a.tobytes(), np.ones(a.nbytes, bool)) for a in arrays), unwritten])
    arguments = [np.uint64(memory.address(n)).tobytes() for n in range(len(names))]
    Machine(Kernel(parse(text), "k"), memory, seed).launch((1, 1, 1), (threads, 1, 1), 0, arguments)
    return memory.contents(len(arrays)).view(output.dtype).copy()


def lanewise(opcode: str, kinds: list[str], result: str, inputs: list[Any], literal: str = "") -> Any:
    """One instruction on 32 lanes."""
    prefix = {2: "%h", 4: "%r", 8: "%d"}
    body, names = "", []
    for n, (kind, values) in enumerate(zip(kinds, inputs, strict=True)):
        size = np.dtype(TYPES[kind]).itemsize
        names.append(f"{prefix[size]}{n}")
        body += f"mad.lo.u64 %d20, %j, {size}, %in{n};\nld.global.b{8 * size} {names[-1]}, [%d20];\n"
        assert values.dtype == TYPES[kind]
    size = np.dtype(TYPES[result]).itemsize
    target = f"{prefix[size]}10"
    body += f"{opcode} {target}, {', '.join(names)}{literal};\n"
    body += f"mad.lo.u64 %d21, %j, {size}, %out;\nst.global.b{8 * size} [%d21], {target};\n"
    return run(body, *inputs, output=np.zeros(32, TYPES[result]))


def integers(kind: str) -> Any:
    dtype = np.dtype(TYPES[kind])
    limits = np.iinfo(dtype)
    edges = [0, 1, limits.max, limits.min, limits.max - 1, 5]
    drawn = RNG.integers(limits.min, limits.max, 26, dtype, endpoint=True)
    return np.concatenate([np.asarray(edges, dtype), drawn])


def wrap(value: int, dtype: Any) -> Any:
    bits = 8 * np.dtype(dtype).itemsize
    value %= 1 << bits
    return value - (1 << bits) if np.dtype(dtype).kind == "i" and value >> (bits - 1) else value


def divide(a: int, b: int) -> int:
    return int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b)) if b else -1


BINARY: dict[str, Any] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "div": divide,
    "rem": lambda a, b: a - divide(a, b) * b,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("name", BINARY)
def test_integer_arithmetic(name: str, kind: str) -> None:
    a, b = integers(kind), RNG.permutation(integers(kind))
    if name in ("div", "rem"):
        b[b == 0] = 3
    expected = [wrap(BINARY[name](int(x), int(y)), TYPES[kind]) for x, y in zip(a, b, strict=True)]
    assert lanewise(f"{name}.{kind}", [kind, kind], kind, [a, b]).tolist() == expected


@pytest.mark.parametrize(("name", "wide"), [("u32", "u64"), ("s32", "s64")])
def test_wide_and_high_products(name: str, wide: str) -> None:
    a, b, c = integers(name), RNG.permutation(integers(name)), integers(wide)
    products = [int(x) * int(y) for x, y in zip(a, b, strict=True)]
    assert lanewise(f"mul.wide.{name}", [name, name], wide, [a, b]).tolist() == products
    assert lanewise(f"mul.hi.{name}", [name, name], name, [a, b]).tolist() == [p >> 32 for p in products]
    expected = [wrap(p + int(z), TYPES[wide]) for p, z in zip(products, c, strict=True)]
    assert lanewise(f"mad.wide.{name}", [name, name, wide], wide, [a, b, c]).tolist() == expected


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_shifts_past_the_width(kind: str) -> None:
    a, n = integers(kind), np.arange(32, dtype=np.uint32) * 5
    bits = 8 * np.dtype(TYPES[kind]).itemsize
    right = [int(x) >> min(int(s), bits) for x, s in zip(a, n, strict=True)]
    left = [wrap(int(x) << int(s), TYPES[f"b{bits}"]) for x, s in zip(a, n, strict=True)]
    assert lanewise(f"shr.{kind}", [kind, "u32"], kind, [a, n]).tolist() == right
    assert lanewise(f"shl.b{bits}", [f"b{bits}", "u32"], f"b{bits}", [a.view(TYPES[f"b{bits}"]), n]).tolist() == left


def test_bit_fields_permutations_and_logic() -> None:
    a, b, c = (integers("b32") for _ in range(3))
    place, count = np.arange(32, dtype=np.uint32), np.arange(32, dtype=np.uint32)[::-1].copy()
    fields = [(int(x) >> int(p)) & ((1 << int(n)) - 1) for x, p, n in zip(a, place, count, strict=True)]
    assert lanewise("bfe.u32", ["u32"] * 3, "u32", [a, place, count]).tolist() == fields
    signed = lanewise("bfe.s32", ["s32", "u32", "u32"], "s32", [a.view(np.int32), place, count])
    expected = []
    for x, p, n in zip(a.view(np.int32).tolist(), place.tolist(), count.tolist(), strict=True):
        field = (x >> p) & ((1 << n) - 1)
        expected.append(field - (1 << n) if n and field >> (n - 1) else field)
    assert signed.tolist() == expected
    logic = [(~int(x) & int(y) | int(z)) & 0xFFFFFFFF for x, y, z in zip(a, b, c, strict=True)]
    table = (~0xF0 & 0xCC | 0xAA) & 0xFF
    assert lanewise("lop3.b32", ["b32"] * 3, "b32", [a, b, c], f", {table}").tolist() == logic
    swapped = [int.from_bytes(int(x).to_bytes(4, "little"), "big") for x in a]
    assert lanewise("prmt.b32", ["b32", "b32"], "b32", [a, b], ", 0x0123").tolist() == swapped
    assert lanewise("popc.b32", ["b32"], "u32", [a]).tolist() == [int(x).bit_count() for x in a]
    assert lanewise("clz.b32", ["b32"], "u32", [a]).tolist() == [32 - int(x).bit_length() for x in a]
    funnel = [((int(y) << 32 | int(x)) >> 7) & 0xFFFFFFFF for x, y in zip(a, b, strict=True)]
    assert lanewise("shf.r.wrap.b32", ["b32", "b32"], "b32", [a, b], ", 7").tolist() == funnel


def test_float_arithmetic_is_rounded_once() -> None:
    a, b, c = (RNG.normal(size=32).astype(np.float32) for _ in range(3))
    fused = [np.float32(float(x) * float(y) + float(z)) for x, y, z in zip(a, b, c, strict=True)]
    assert lanewise("fma.rn.f32", ["f32"] * 3, "f32", [a, b, c]).tolist() == fused
    assert lanewise("div.full.f32", ["f32"] * 2, "f32", [a, b]).tolist() == (a / b).tolist()
    exact = np.exp2(a.astype(np.float64)).astype(np.float32)
    assert lanewise("ex2.approx.ftz.f32", ["f32"], "f32", [a]).tolist() == exact.tolist()
    nans = np.where(np.arange(32) % 2, np.float32(np.nan), a)
    assert np.array_equal(lanewise("max.f32", ["f32"] * 2, "f32", [nans, b]), np.fmax(nans, b))
    assert np.isnan(lanewise("max.NaN.f32", ["f32"] * 2, "f32", [nans, b])[1::2]).all()


def test_conversions() -> None:
    floats = np.asarray([0.5, 1.5, -0.5, 2.5, -2.7, 3e9, -3e9, np.nan] * 4, np.float32)
    nearest = [0, 2, 0, 2, -3, 2**31 - 1, -(2**31), 0] * 4
    assert lanewise("cvt.rni.s32.f32", ["f32"], "s32", [floats]).tolist() == nearest
    assert lanewise("cvt.rzi.u32.f32", ["f32"], "u32", [floats]).tolist() == [0, 1, 0, 2, 0, 3 * 10**9, 0, 0] * 4
    assert lanewise("cvt.rmi.f32.f32", ["f32"], "f32", [floats])[:7].tolist() == np.floor(floats)[:7].tolist()
    signed = integers("s32")
    assert lanewise("cvt.s64.s32", ["s32"], "s64", [signed]).tolist() == signed.tolist()
    assert lanewise("cvt.u64.u32", ["u32"], "u64", [signed.view(np.uint32)]).tolist() == signed.view(np.uint32).tolist()
    values = RNG.normal(size=32).astype(np.float32)
    assert lanewise("cvt.rn.f16.f32", ["f32"], "f16", [values]).tolist() == values.astype(np.float16).tolist()
    other = RNG.normal(size=32).astype(np.float32)
    pairs = lanewise("cvt.rn.bf16x2.f32", ["f32", "f32"], "b32", [values, other]).view(ml_dtypes.bfloat16)
    assert pairs[0::2].tolist() == other.astype(ml_dtypes.bfloat16).tolist(), "the second operand is the low half"
    assert pairs[1::2].tolist() == values.astype(ml_dtypes.bfloat16).tolist()


@pytest.mark.parametrize(
    ("kind", "dtype", "depth"),
    [("f16", np.float16, 16), ("f16", np.float16, 8), ("bf16", ml_dtypes.bfloat16, 16), ("tf32", np.float32, 8)],
)
def test_matrix_products(kind: str, dtype: Any, depth: int) -> None:
    # Small whole numbers are exact in every type; the fragments are laid out by the PTX manual's own formulas.
    a, b = (RNG.integers(-8, 8, s).astype(dtype) for s in ((16, depth), (depth, 8)))
    c = RNG.integers(-8, 8, (16, 8)).astype(np.float32)
    each = 4 // np.dtype(dtype).itemsize
    a_regs = [np.zeros((32, each), dtype) for _ in range(16 * depth // 32 // each)]
    b_regs = [np.zeros((32, each), dtype) for _ in range(8 * depth // 32 // each)]
    for lane in range(32):
        group, thread = lane >> 2, lane % 4
        for i in range(len(a_regs) * each):
            register, e = divmod(i, each)
            row = group if register % 2 == 0 else group + 8
            column = thread * each + e + (4 * each if register >= 2 else 0)
            a_regs[register][lane, e] = a[row, column]
        for i in range(len(b_regs) * each):
            register, e = divmod(i, each)
            b_regs[register][lane, e] = b[thread * each + e + 4 * each * register, group]
    places = [[((lane >> 2) + 8 * (i // 2), lane % 4 * 2 + i % 2) for lane in range(32)] for i in range(4)]
    c_regs = [np.asarray([c[place] for place in lanes], np.float32) for lanes in places]
    raw = [[np.ascontiguousarray(r).view(np.uint32).ravel() for r in part] for part in (a_regs, b_regs, c_regs)]
    opcode = ("mma", "sync", "aligned", f"m16n8k{depth}", "row", "col", "f32", kind, kind, "f32")
    out = [r.view(np.float32) for r in tensor_cores.multiply(opcode, *raw)]
    expected = a.astype(np.float32) @ b.astype(np.float32) + c
    assert [o.tolist() for o in out] == [[expected[place] for place in lanes] for lanes in places]


def test_ldmatrix_hands_each_lane_its_pair() -> None:
    matrix = np.arange(64, dtype=np.uint16).reshape(8, 8)
    (plain,) = tensor_cores.load_matrices(matrix, 1, False)
    (turned,) = tensor_cores.load_matrices(matrix, 1, True)
    assert plain.view(np.uint16).reshape(32, 2)[13].tolist() == [3 * 8 + 2, 3 * 8 + 3]
    assert turned.view(np.uint16).reshape(32, 2)[13].tolist() == [2 * 8 + 3, 3 * 8 + 3]


STORE = "mad.lo.u64 %d9, %j, 4, %out;\nst.global.u32 [%d9], %r9;\n"


@pytest.mark.parametrize(
    ("mode", "argument", "expected"),
    [
        ("bfly", 1, lambda i: i ^ 1),
        ("down", 4, lambda i: i + 4 if i + 4 < 32 else i),
        ("idx", 3, lambda i: 3),
        ("up", 2, lambda i: i - 2 if i >= 2 else i),
    ],
)
def test_shuffles(mode: str, argument: int, expected: Any) -> None:
    clamp = 0 if mode == "up" else 31
    body = f"shfl.sync.{mode}.b32 %r9, %i, {argument}, {clamp}, -1;\n{STORE}"
    assert run(body, output=np.zeros(32, np.uint32)).tolist() == [expected(i) for i in range(32)]


def test_lanes_that_part_meet_again() -> None:
    body = f"""
and.b32 %r1, %i, 3;
mov.u32 %r9, 0;
LOOP:
setp.ge.u32 %p1, %r9, %r1;
@%p1 bra DONE;
add.u32 %r9, %r9, 1;
bra LOOP;
DONE:
shfl.sync.bfly.b32 %r9, %r9, 1, 31, -1;
{STORE}"""
    assert run(body, output=np.zeros(32, np.uint32)).tolist() == [(i ^ 1) & 3 for i in range(32)]


def test_an_exchange_in_a_branch_is_refused() -> None:
    body = f"setp.lt.u32 %p1, %i, 7;\nmov.u32 %r9, 0;\n@%p1 shfl.sync.bfly.b32 %r9, %i, 1, 31, -1;\n{STORE}"
    with pytest.raises(BarrierError, match="member mask"):
        run(body, output=np.zeros(32, np.uint32))


REVERSE = """
mov.u32 %r1, tile; shl.b32 %r2, %i, 2; add.u32 %r3, %r1, %r2; st.shared.u32 [%r3], %i;
{barrier}
sub.u32 %r4, 63, %i; shl.b32 %r4, %r4, 2; add.u32 %r4, %r1, %r4; ld.shared.u32 %r9, [%r4];
"""


@pytest.mark.parametrize("seed", range(5))
def test_shared_memory_needs_a_barrier_whatever_the_order(seed: int) -> None:
    how: dict[str, Any] = {"output": np.zeros(64, np.uint32), "threads": 64, "shared": 256, "seed": seed}
    out = run(REVERSE.format(barrier="bar.sync 0;") + STORE, **how)
    assert out.tolist() == list(range(64))[::-1]
    with pytest.raises((RaceError, UninitialisedError)):
        run(REVERSE.format(barrier="") + STORE, **how)


def test_a_barrier_that_one_warp_skips_is_noticed() -> None:
    body = "setp.ge.u32 %p1, %i, 32;\n@%p1 bra END;\nbar.sync 0;\nEND:\n"
    with pytest.raises(BarrierError, match="1 of 2 warps"):
        run(body, output=np.zeros(1, np.uint32), threads=64)


COPY = """
mov.u32 %r1, tile; shl.b32 %r2, %i, 4; add.u32 %r3, %r1, %r2; mad.lo.u64 %d1, %j, 16, %in0;
cp.async.cg.shared.global [%r3], [%d1], 16, %r10;
cp.async.commit_group;
{wait}
ld.shared.u32 %r9, [%r3+8];
"""


def test_asynchronous_copies_arrive_when_waited_for() -> None:
    data = np.arange(128, dtype=np.uint32)
    setup = "setp.lt.u32 %p1, %i, 16;\nselp.u32 %r10, 16, 0, %p1;\n"
    out = run(
        setup + COPY.format(wait="cp.async.wait_group 0;") + STORE, data, output=np.zeros(32, np.uint32), shared=512
    )
    assert out.tolist() == [4 * i + 2 if i < 16 else 0 for i in range(32)]
    with pytest.raises(UninitialisedError):
        run(
            setup + COPY.format(wait="cp.async.wait_group 1;") + STORE, data, output=np.zeros(32, np.uint32), shared=512
        )


def test_atomics_count_every_lane() -> None:
    body = "st.global.u32 [%out], 0;\natom.global.add.u32 %r9, [%out], 3;\n"
    assert run(body, output=np.zeros(1, np.uint32)).tolist() == [96]


def test_memory_is_checked() -> None:
    data, out = np.zeros(8, np.float32), np.zeros(32, np.uint32)
    read = "mad.lo.u64 %d1, %j, 4, %in0;\nld.global.u32 %r9, [%d1];\n"
    with pytest.raises(OutOfBoundsError, match="32 bytes into buffer 0 of 32"):
        run(read, data, output=out)
    with pytest.raises(OutOfBoundsError, match="not aligned"):
        run("ld.global.u32 %r9, [%in0+2];", data, output=out)
    with pytest.raises(UninitialisedError, match="nobody wrote"):
        run("ld.global.u32 %r9, [%out];", output=out)
    with pytest.raises(RaceError, match="two lanes"):
        run("st.global.u32 [%out], %i;", output=out)
    with pytest.raises(OutOfBoundsError, match="of shared memory"):
        run("mov.u32 %r1, tile; st.shared.u32 [%r1+16], %r1;", output=out)


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(UnknownInstructionError, match="tex"):
        run("tex.2d.v4.f32.s32 %r1, %r2;", output=np.zeros(1, np.uint32))


def test_endless_loops_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.emulation.ptx.machine._MOST_STEPS", 2000)
    with pytest.raises(BarrierError, match="does not end"):
        run("AGAIN:\nbra AGAIN;", output=np.zeros(1, np.uint32))
