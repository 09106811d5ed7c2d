// What the machine can do at most, in the instruction set that the other kernels use: multiply-adds that stay in
// registers, and copying between two arrays. Profiles measure their steps against these.
#include "kernel.h"
#include "vec.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {
namespace {

#define FMA_PARAMS(S, A) S(i32, rounds) S(f32, factor) S(f32, addend)
VOXELRT_PARAMS(FmaParams, FMA_PARAMS)
#define COPY_PARAMS(S, A) S(i32, streaming)
VOXELRT_PARAMS(CopyParams, COPY_PARAMS)

// Chains that do not wait for one another: enough to hide the latency of the multiply-add on every unit, few enough
// that they, the factor and the addend stay in registers.
constexpr int kChains = kVectorRegisters * 3 / 4 / kRegistersPerBlock;
constexpr int64_t kPiece = kChains * kBlock;
constexpr int64_t kCopyPiece = 1 << 18;

void repeat(float *values, int64_t rounds, float factor, float addend) {
    vf16 chain[kChains];
    const vf16 a = broadcast(factor), b = broadcast(addend);
    for (int i = 0; i < kChains; ++i)
        chain[i] = load(values + i * kBlock);
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
        for (int i = 0; i < kChains; ++i)
            chain[i] = fma(chain[i], a, b);
    }
    for (int i = 0; i < kChains; ++i)
        store(values + i * kBlock, chain[i]);
}

Message run_fma(const Step &step, const Env &env) {
    const FmaParams params = step.as<FmaParams>();
    const float *x = step.in[0].as<const float>();
    float *y = step.out[0].as<float>();
    env.parallel_range(step.in[0].count(), kPiece, [&](int64_t begin, int64_t end, uint32_t) {
        alignas(64) float values[kPiece] = {};
        std::memcpy(values, x + begin, static_cast<size_t>(end - begin) * sizeof(float));
        repeat(values, params.rounds, params.factor, params.addend);
        std::memcpy(y + begin, values, static_cast<size_t>(end - begin) * sizeof(float));
    });
    return nullptr;
}

Message run_copy(const Step &step, const Env &env) {
    const bool streaming =
        step.as<CopyParams>().streaming != 0 && reinterpret_cast<uintptr_t>(step.out[0].data) % 64 == 0;
    const float *x = step.in[0].as<const float>();
    float *y = step.out[0].as<float>();
    env.parallel_range(step.in[0].count(), kCopyPiece, [&](int64_t i, int64_t end, uint32_t) {
        if (streaming) {
            for (; i + kBlock <= end; i += kBlock)
                stream(y + i, load(x + i));
            stream_fence();
        } else {
            for (; i + kBlock <= end; i += kBlock)
                store(y + i, load(x + i));
        }
        for (; i < end; ++i)
            y[i] = x[i];
    });
    return nullptr;
}

Message check(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1)
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0];
    if (in.dtype != VOXELRT_F32 || out.dtype != VOXELRT_F32 || in.rank != 1 || out.rank != 1 || !in.contiguous() ||
        !out.contiguous() || in.pending())
        return "input and output are float32 vectors without gaps";
    if (in.dims[0] != out.dims[0])
        return fail("input and output have %lld and %lld elements", static_cast<long long>(in.dims[0]),
                    static_cast<long long>(out.dims[0]));
    return nullptr;
}

Message check_fma(const Step &step) {
    const int rounds = step.as<FmaParams>().rounds;
    return rounds < 0 ? fail("rounds is %d; it is not negative", rounds) : check(step);
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(ceiling,
                {{"ceiling.fma", 1, FmaParamsText, sizeof(FmaParams), check_fma, run_fma, nullptr, nullptr, nullptr},
                 {"ceiling.copy", 1, CopyParamsText, sizeof(CopyParams), check, run_copy, nullptr, nullptr, nullptr}})
