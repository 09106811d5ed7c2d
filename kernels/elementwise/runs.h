// How an elementwise step walks its operands: broadcasting, linear tensors of any strides, blocked tensors with a
// per-channel affine still to be applied, and the channels past the last that a blocked output keeps at zero.
#pragma once

#include "elements.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

constexpr int64_t kGrain = 32768; // elements of a task
constexpr int64_t kDirect = 4096; // elements of a chunk that needs no buffer

// ---- operands ----

// Input dims equal the output's or are one, aligned at the right.
static Message check_broadcast(const Tensor &in, const Tensor &out, int number) {
    if (!in.present())
        return fail("input %d is absent", number);
    if (in.rank > out.rank)
        return fail("input %d has %d axes, the output %d", number, in.rank, out.rank);
    if (out.layout == VOXELRT_LINEAR && in.layout != VOXELRT_LINEAR)
        return "a linear output takes linear inputs";
    if (in.pending() && (in.layout != VOXELRT_BLOCKED16 || (in.dtype != VOXELRT_F32 && in.dtype != VOXELRT_BF16)))
        return fail("input %d is pending but not blocked float32 or bfloat16", number);
    bool same = true;
    for (int i = 0; i < in.rank; ++i) {
        const int64_t a = in.dims[i], b = out.dims[i + out.rank - in.rank];
        same = same && a == b;
        if (a != b && a != 1)
            return fail("input %d has %lld elements where the output has %lld", number, static_cast<long long>(a),
                        static_cast<long long>(b));
    }
    return in.pending() && !same ? fail("input %d is pending and broadcast", number) : nullptr;
}

// Whether a blocked step has a linear input with a channel axis, which must not be read past its last channel.
static bool has_linear_channels(const Step &step) {
    for (int k = 0; k < step.inputs; ++k) {
        const Tensor &t = step.in[k];
        const int own = 1 - (step.out[0].rank - t.rank);
        if (t.layout == VOXELRT_LINEAR && own >= 0 && t.dims[own] != 1)
            return true;
    }
    return false;
}

static Message check_operands(const Step &step, int inputs) {
    if (step.inputs != inputs || step.outputs != 1 || !step.out[0].present())
        return fail("takes %d inputs and one output, not %d and %d", inputs, step.inputs, step.outputs);
    if (step.out[0].layout == VOXELRT_BLOCKED16 && step.out[0].dtype != VOXELRT_F32 &&
        step.out[0].dtype != VOXELRT_BF16)
        return "blocked tensors are float32 or bfloat16";
    bool pending = false;
    for (int i = 0; i < inputs; ++i) {
        if (Message message = check_broadcast(step.in[i], step.out[0], i))
            return message;
        pending = pending || step.in[i].pending();
    }
    if (pending && has_linear_channels(step) && step.out[0].dims[1] % kBlock != 0)
        return "a pending input beside linear channels that do not fill their blocks";
    return nullptr;
}

// The strides of an input over the output's axes.
static void broadcast_strides(const Tensor &in, const Tensor &out, int64_t *strides) {
    for (int i = 0; i < out.rank; ++i) {
        const int own = i - (out.rank - in.rank);
        strides[i] = own < 0 || in.dims[own] != out.dims[i] ? 0 : in.strides[own];
    }
}

// ---- the runs ----

// One elementwise step over some part of its operands. Operand 0 is the output.
struct Job {
    Loop loop;
    Elements operands[kMaxOperands];
};

// Per lane scale and shift of a pending input within one (n, block).
struct Affine16 {
    alignas(64) float scale[kBlock], shift[kBlock];
    float slope;
};

// How a chunk is computed: loads inputs, stores the output. `pending[k]` belongs to operand k, null for none.
struct Function {
    void (*chunk)(const Function &, const Job &, const Affine16 *const *pending, int64_t start, int64_t count);
    const void *params;
    bool direct; // nothing goes through a buffer of kChunk elements
};

static void run_job(const Job &job, const Function &function, const Affine16 *const *pending, int64_t begin,
                    int64_t end) {
    bool direct = function.direct;
    for (int k = 0; k < job.loop.operands; ++k)
        direct = direct && job.loop.dense(k) &&
                 bytes_of(job.operands[k].dtype) == bytes_of(compute_of(job.operands[k].dtype)) &&
                 !(pending && pending[k]);
    const int64_t step = direct ? kDirect : kChunk;
    for (int64_t at = begin; at < end; at += step)
        function.chunk(function, job, pending, at, at + step < end ? step : end - at);
}

static void run_linear(const Step &step, const Function &function, const Env &env) {
    const Tensor &out = step.out[0];
    Job job;
    int64_t strides[kMaxOperands][VOXELRT_MAX_RANK];
    job.loop.operands = 1 + step.inputs;
    for (int k = 0; k < job.loop.operands; ++k) {
        const Tensor &t = k == 0 ? out : step.in[k - 1];
        job.operands[k] = {t.data, t.dtype};
        broadcast_strides(t, out, strides[k]);
    }
    for (int i = 0; i < out.rank; ++i) {
        int64_t steps[kMaxOperands] = {};
        for (int k = 0; k < job.loop.operands; ++k)
            steps[k] = strides[k][i];
        job.loop.add(out.dims[i], steps);
    }
    job.loop.finish();
    env.parallel_range(job.loop.count(), kGrain,
                       [&](int64_t begin, int64_t end, uint32_t) { run_job(job, function, nullptr, begin, end); });
}

// The planes (Z, Y, X, lanes) of one (n, block) of a blocked output, and where each operand's plane starts.
struct Planes {
    Job job;
    int64_t n_stride[kMaxOperands], block_stride[kMaxOperands];
};

static Planes planes_of(const Step &step, int64_t lanes) {
    const Tensor &out = step.out[0];
    Planes planes;
    Job &job = planes.job;
    job.loop.operands = 1 + step.inputs;
    int64_t space[kMaxOperands][4];
    for (int k = 0; k < job.loop.operands; ++k) {
        const Tensor &t = k == 0 ? out : step.in[k - 1];
        int64_t strides[VOXELRT_MAX_RANK];
        broadcast_strides(t, out, strides);
        const bool blocked = t.layout == VOXELRT_BLOCKED16, channels = blocked ? t.dims[1] == out.dims[1] : true;
        job.operands[k] = {t.data, t.dtype};
        planes.n_stride[k] = strides[0];
        planes.block_stride[k] = blocked ? (channels ? t.strides[1] : 0) : strides[1] * kBlock;
        for (int i = 0; i < 3; ++i)
            space[k][i] = strides[2 + i];
        space[k][3] = blocked ? channels : strides[1];
    }
    const int64_t dims[4] = {out.dims[2], out.dims[3], out.dims[4], lanes};
    for (int i = 0; i < 4; ++i) {
        int64_t steps[kMaxOperands] = {};
        for (int k = 0; k < job.loop.operands; ++k)
            steps[k] = space[k][i];
        job.loop.add(dims[i], steps);
    }
    job.loop.finish();
    return planes;
}

static Affine16 affine_of(const Tensor &t, int64_t n, int64_t block) {
    Affine16 affine = {};
    affine.slope = t.pending_slope;
    for (int64_t lane = 0; lane < kBlock && block * kBlock + lane < t.dims[1]; ++lane) {
        affine.scale[lane] = t.pending_scale[n * t.dims[1] + block * kBlock + lane];
        affine.shift[lane] = t.pending_shift[n * t.dims[1] + block * kBlock + lane];
    }
    return affine;
}

static void clear_lanes(const Tensor &out, int64_t n, int64_t block, int64_t first, int64_t begin, int64_t end) {
    const int64_t Y = out.dims[3], X = out.dims[4], bytes = bytes_of(out.dtype);
    char *plane = out.data + (n * out.strides[0] + block * out.strides[1]) * bytes;
    for (int64_t voxel = begin; voxel < end; ++voxel) {
        const int64_t x = voxel % X, y = voxel / X % Y, z = voxel / (X * Y);
        char *at = plane + (z * out.strides[2] + y * out.strides[3] + x * out.strides[4] + first) * bytes;
        std::memset(at, 0, static_cast<size_t>((kBlock - first) * bytes));
    }
}

// The last block is computed on all 16 lanes and cleared after, unless an input is a linear tensor with channels.
static void run_blocked(const Step &step, const Function &function, const Env &env) {
    const Tensor &out = step.out[0];
    const int64_t N = out.dims[0], C = out.dims[1], blocks = (C + kBlock - 1) / kBlock, tail = C % kBlock;
    const int64_t voxels = out.dims[2] * out.dims[3] * out.dims[4];
    if (N * C * voxels == 0)
        return;
    const bool narrow = has_linear_channels(step);
    bool pending = false;
    for (int k = 0; k < step.inputs; ++k)
        pending = pending || step.in[k].pending();
    const Planes full = planes_of(step, kBlock);
    const Planes last = tail && narrow ? planes_of(step, tail) : full;
    const int64_t grain = kGrain / kBlock, pieces = (voxels + grain - 1) / grain;
    env.parallel(N * blocks * pieces, [&](int64_t task, uint32_t) {
        const int64_t piece = task % pieces, block = task / pieces % blocks, n = task / (pieces * blocks);
        const bool ends = block == blocks - 1;
        const Planes &planes = ends ? last : full;
        const int64_t lanes = ends && tail && narrow ? tail : kBlock;
        Job job = planes.job;
        Affine16 affines[kMaxOperands];
        const Affine16 *applied[kMaxOperands] = {};
        for (int k = 0; k < job.loop.operands; ++k) {
            const int64_t offset = n * planes.n_stride[k] + block * planes.block_stride[k];
            job.operands[k].data += offset * bytes_of(job.operands[k].dtype);
            if (k > 0 && step.in[k - 1].pending()) {
                affines[k] = affine_of(step.in[k - 1], n, block);
                applied[k] = &affines[k];
            }
        }
        const int64_t begin = piece * grain, end = begin + grain < voxels ? begin + grain : voxels;
        run_job(job, function, pending ? applied : nullptr, begin * lanes, end * lanes);
        if (ends && tail)
            clear_lanes(out, n, block, tail, begin, end);
    });
}

static Message run_function(const Step &step, const Function &function, const Env &env) {
    if (step.out[0].layout == VOXELRT_BLOCKED16)
        run_blocked(step, function, env);
    else
        run_linear(step, function, env);
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
