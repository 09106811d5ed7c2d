// copy: a tensor into another layout or stride order; applies what is pending. The step that materialises a norm,
// reorders between LINEAR and BLOCKED16, and transposes by strides.
#include "../common/bfloat.h"
#include "../common/block.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

#define COPY_PARAMS(S, A) S(i32, reserved)
VOXELRT_PARAMS(CopyParams, COPY_PARAMS)

static Message check(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1)
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0];
    if (!in.present() || !out.present() || in.rank != out.rank)
        return "input and output differ in rank";
    for (int i = 0; i < in.rank; ++i)
        if (in.dims[i] != out.dims[i])
            return fail("axis %d has %lld and %lld elements", i, static_cast<long long>(in.dims[i]),
                        static_cast<long long>(out.dims[i]));
    const bool volume = in.layout == VOXELRT_BLOCKED16 || out.layout == VOXELRT_BLOCKED16 || in.pending();
    const Tensor *both[] = {&in, &out};
    for (const Tensor *t : both)
        if (volume && t->dtype != VOXELRT_F32 && (t->dtype != VOXELRT_BF16 || t->layout != VOXELRT_BLOCKED16))
            return "blocked tensors are float32 or bfloat16, others beside them and pending ones float32";
    if (!volume && in.dtype != out.dtype)
        return "input and output differ in dtype";
    if (in.pending() && in.rank != 5)
        return "a pending tensor has the axes N, C, Z, Y, X";
    return nullptr;
}

static inline float applied(const Tensor &t, float x, int64_t n, int64_t c) {
    const float y = x * t.pending_scale[n * t.dims[1] + c] + t.pending_shift[n * t.dims[1] + c];
    return y >= 0 ? y : y * t.pending_slope;
}

static inline int64_t channel_offset(const Tensor &t, int64_t c) {
    return t.layout == VOXELRT_BLOCKED16 ? c / kBlock * t.strides[1] + c % kBlock : c * t.strides[1];
}

// One row along x of one block of channels, from and to BLOCKED16.
template <class A, class B>
static void blocked_row(const Tensor &in, const A *source, B *target, int64_t out_step, int64_t n, int64_t block) {
    const int64_t X = in.dims[4], step = in.strides[4];
    if (!in.pending()) {
        for (int64_t x = 0; x < X; ++x)
            store(target + x * out_step, load(source + x * step));
        return;
    }
    const Affine affine(in, n, block);
    for (int64_t x = 0; x < X; ++x)
        store(target + x * out_step, affine(load(source + x * step)));
}

// The same with a LINEAR side. A few positions at a time: the blocked side's cache lines are then written whole.
template <class A, class B>
static void mixed_row(const Tensor &in, const Tensor &out, const A *source, B *target, int64_t n, int64_t block) {
    const int64_t C = in.dims[1], X = in.dims[4], sx = in.strides[4], tx = out.strides[4];
    const int64_t left = C - block * kBlock, lanes = left < kBlock ? left : kBlock;
    const bool to_blocked = out.layout == VOXELRT_BLOCKED16;
    for (int64_t x0 = 0; x0 < X; x0 += 16) {
        const int64_t end = x0 + 16 < X ? x0 + 16 : X;
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const int64_t c = block * kBlock + lane;
            const A *a = source + channel_offset(in, c);
            B *b = target + channel_offset(out, c);
            if (in.pending())
                for (int64_t x = x0; x < end; ++x)
                    b[x * tx] = Codec<B>::write(applied(in, Codec<A>::read(a[x * sx]), n, c));
            else
                for (int64_t x = x0; x < end; ++x)
                    b[x * tx] = Codec<B>::write(Codec<A>::read(a[x * sx]));
        }
        for (int64_t lane = lanes; to_blocked && lane < kBlock; ++lane) // channels past the last hold zeros
            for (int64_t x = x0; x < end; ++x)
                target[block * out.strides[1] + lane + x * tx] = Codec<B>::write(0.0f);
    }
}

// (N, C, Z, Y, X) with at least one side blocked, or with something pending; one task a row of x and block.
template <class A, class B> static void run_volume(const Tensor &in, const Tensor &out, const Env &env) {
    const int64_t Z = in.dims[2], Y = in.dims[3], blocks = (in.dims[1] + kBlock - 1) / kBlock;
    const bool both = in.layout == VOXELRT_BLOCKED16 && out.layout == VOXELRT_BLOCKED16;
    env.parallel(in.dims[0] * blocks * Z * Y, [&](int64_t task, uint32_t) {
        const int64_t y = task % Y, z = task / Y % Z, block = task / (Y * Z) % blocks, n = task / (Y * Z * blocks);
        const A *source = in.as<const A>() + n * in.strides[0] + z * in.strides[2] + y * in.strides[3];
        B *target = out.as<B>() + n * out.strides[0] + z * out.strides[2] + y * out.strides[3];
        if (both)
            blocked_row(in, source + block * in.strides[1], target + block * out.strides[1], out.strides[4], n, block);
        else
            mixed_row(in, out, source, target, n, block);
    });
}

template <class T> static void copy_row(const char *from, char *to, int64_t count, int64_t a, int64_t b) {
    const T *source = reinterpret_cast<const T *>(from);
    T *target = reinterpret_cast<T *>(to);
    for (int64_t i = 0; i < count; ++i)
        target[i * b] = source[i * a];
}

static void run_linear(const Tensor &in, const Tensor &out, const Env &env) {
    const int unit = bytes_of(in.dtype);
    if (in.contiguous() && out.contiguous()) {
        env.parallel_range(in.count() * unit, 1 << 18, [&](int64_t begin, int64_t end, uint32_t) {
            std::memcpy(out.data + begin, in.data + begin, static_cast<size_t>(end - begin));
        });
        return;
    }
    const int last = in.rank - 1;
    int64_t rows = 1;
    for (int i = 0; i < last; ++i)
        rows *= in.dims[i];
    const int64_t width = in.dims[last];
    env.parallel_range(rows, 1 + 4096 / (width + 1), [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t row = begin; row < end; ++row) {
            int64_t rest = row, a = 0, b = 0;
            for (int i = last - 1; i >= 0; --i) {
                const int64_t k = rest % in.dims[i];
                rest /= in.dims[i];
                a += k * in.strides[i];
                b += k * out.strides[i];
            }
            const char *from = in.data + a * unit;
            char *to = out.data + b * unit;
            const int64_t sa = in.strides[last], sb = out.strides[last];
            if (sa == 1 && sb == 1)
                std::memcpy(to, from, static_cast<size_t>(width * unit));
            else if (unit == 4)
                copy_row<uint32_t>(from, to, width, sa, sb);
            else if (unit == 8)
                copy_row<uint64_t>(from, to, width, sa, sb);
            else if (unit == 2)
                copy_row<uint16_t>(from, to, width, sa, sb);
            else
                copy_row<uint8_t>(from, to, width, sa, sb);
        }
    });
}

static Message run(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    if (in.count() == 0)
        return nullptr;
    if (in.layout == VOXELRT_BLOCKED16 || out.layout == VOXELRT_BLOCKED16 || in.pending())
        with_stored(in.dtype, [&](auto from) {
            with_stored(out.dtype, [&](auto to) { run_volume<decltype(from), decltype(to)>(in, out, env); });
        });
    else
        run_linear(in, out, env);
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(copy, {{"copy", 1, CopyParamsText, sizeof(CopyParams), check, run, nullptr, nullptr, nullptr}})
