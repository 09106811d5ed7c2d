// What a kernel is, for the runtime and for every kernels/<op>/cpu.cpp.
//
// A cpu.cpp is compiled once per instruction set with VOXELRT_ISA set to avx2, avx512 or neon. It puts all its code in
// `namespace voxelrt::VOXELRT_ISA` (so that two builds never share an inline function) and ends with
// VOXELRT_KERNELS(<folder>, {...}), which the registry finds by the folder's name.
#pragma once

#include "voxelrt.h"

#include <cstdint>
#include <cstdio>

namespace voxelrt {

constexpr int kBlock = 16; // channels in a block of the BLOCKED16 layout, on every instruction set

// A tensor as a kernel sees it. Blocked tensors have dims (N, C, Z, Y, X) and strides (N, block, Z, Y, 16).
struct Tensor {
    char *data = nullptr;
    const float *pending_scale = nullptr; // (N, C), applied on load with pending_shift and pending_slope; or null
    const float *pending_shift = nullptr;
    float pending_slope = 1.0f;
    uint8_t dtype = 0; // 0: this operand is absent
    uint8_t layout = VOXELRT_LINEAR;
    uint8_t rank = 0;
    int64_t dims[VOXELRT_MAX_RANK] = {};
    int64_t strides[VOXELRT_MAX_RANK] = {};

    bool present() const { return dtype != 0; }
    bool pending() const { return pending_scale != nullptr; }
    template <class T> T *as() const { return reinterpret_cast<T *>(data); }
    int64_t count() const {
        int64_t n = 1;
        for (int i = 0; i < rank; ++i)
            n *= dims[i];
        return n;
    }
    // Row-major without gaps; axes of size one do not matter.
    bool contiguous() const {
        int64_t expected = 1;
        for (int i = rank - 1; i >= 0; --i) {
            if (dims[i] != 1 && strides[i] != expected)
                return false;
            expected *= dims[i];
        }
        return layout == VOXELRT_LINEAR;
    }
};

struct Step {
    const void *params;
    const Tensor *in;
    const Tensor *out;
    int inputs, outputs;
    template <class P> const P &as() const { return *static_cast<const P *>(params); }
    // Optional trailing operands read as absent.
    const Tensor &input(int i) const {
        static const Tensor absent;
        return i < inputs ? in[i] : absent;
    }
};

// The threads and scratch memory of a run. Work is cut into tasks by the kernel, never by the number of threads, so
// that results are bit-equal for any number.
struct Env {
    voxelrt_parallel_for for_each;
    void *pool;
    uint32_t threads;
    char *scratch; // Kernel::scratch(step, threads) bytes, aligned to 64

    // Run body(index, worker) for index in [0, count).
    template <class F> void parallel(int64_t count, F &&body) const {
        if (count <= 0)
            return;
        struct Call {
            F *body;
            int64_t count, per;
        };
        constexpr int64_t kMost = 1 << 20;
        Call call{&body, count, (count + kMost - 1) / kMost};
        auto task = [](void *argument, uint32_t index, uint32_t worker) {
            const Call &c = *static_cast<const Call *>(argument);
            const int64_t end = (index + 1) * c.per < c.count ? (index + 1) * c.per : c.count;
            for (int64_t i = index * c.per; i < end; ++i)
                (*c.body)(i, worker);
        };
        const int64_t tasks = (count + call.per - 1) / call.per;
        if (tasks == 1 || threads == 1)
            for (int64_t i = 0; i < count; ++i)
                body(i, 0u);
        else
            for_each(pool, task, &call, static_cast<uint32_t>(tasks));
    }
    // Run body(begin, end, worker) over [0, count) in pieces of `grain`; the pieces do not depend on the threads.
    template <class F> void parallel_range(int64_t count, int64_t grain, F &&body) const {
        const int64_t pieces = (count + grain - 1) / grain;
        parallel(pieces, [&](int64_t piece, uint32_t worker) {
            const int64_t begin = piece * grain;
            body(begin, begin + grain < count ? begin + grain : count, worker);
        });
    }
};

// A message for a step that cannot be run, or null. Static strings, or `fail` for formatted ones (thread-local).
using Message = const char *;
template <class... A> Message fail(const char *format, A... arguments) {
    static thread_local char text[256];
    std::snprintf(text, sizeof text, format, arguments...);
    return text;
}

struct Kernel {
    const char *name; // "conv3d", "pool3d": the op folder, or folder.variant
    uint32_t version; // raised when a plan's bytes would mean something else
    const char *parameters;
    uint32_t parameter_bytes;
    // Everything that a run relies on: counts, dtypes, layouts, dims, ranges of parameters. Plans are untrusted: after
    // a null answer, run() must not touch memory outside the operands.
    Message (*check)(const Step &);
    Message (*run)(const Step &, const Env &);
    // Scratch bytes for a run with that many threads; null means none.
    uint64_t (*scratch)(const Step &, uint32_t threads);
    // The packed size of a raw weight (0: it cannot be packed) and the packing; null where weights are used raw.
    uint64_t (*pack_bytes)(const void *params, const Tensor &raw);
    void (*pack)(const void *params, const Tensor &raw, char *packed);
};

struct KernelList {
    const Kernel *kernels;
    uint32_t count;
};

// ---- parameters: one list makes the struct and its description ----
//   #define CONV_PARAMS(S, A) A(i32, kernel, 3) S(f32, slope)
//   VOXELRT_PARAMS(ConvParams, CONV_PARAMS)
using i32 = int32_t;
using i64 = int64_t;
using f32 = float;
using f64 = double;
#define VOXELRT_SCALAR_FIELD(type, name) type name;
#define VOXELRT_ARRAY_FIELD(type, name, n) type name[n];
#define VOXELRT_SCALAR_TEXT(type, name) #type " " #name ";"
#define VOXELRT_ARRAY_TEXT(type, name, n) #type " " #name "[" #n "];"
#define VOXELRT_PARAMS(Name, LIST)                                                                                     \
    struct __attribute__((packed)) Name {                                                                              \
        LIST(VOXELRT_SCALAR_FIELD, VOXELRT_ARRAY_FIELD)                                                                \
    };                                                                                                                 \
    static constexpr char Name##Text[] = LIST(VOXELRT_SCALAR_TEXT, VOXELRT_ARRAY_TEXT) "";

#define VOXELRT_JOIN2(a, b, c) a##b##_##c
#define VOXELRT_JOIN(a, b, c) VOXELRT_JOIN2(a, b, c)
#define VOXELRT_KERNELS(folder, ...)                                                                                   \
    namespace voxelrt::VOXELRT_ISA {                                                                                   \
    static const ::voxelrt::Kernel registered[] = __VA_ARGS__;                                                         \
    }                                                                                                                  \
    extern "C" const ::voxelrt::KernelList VOXELRT_JOIN(voxelrt_kernels_, folder, VOXELRT_ISA);                        \
    extern "C" const ::voxelrt::KernelList VOXELRT_JOIN(voxelrt_kernels_, folder, VOXELRT_ISA) = {                     \
        voxelrt::VOXELRT_ISA::registered,                                                                              \
        sizeof(voxelrt::VOXELRT_ISA::registered) / sizeof(voxelrt::VOXELRT_ISA::registered[0])};

} // namespace voxelrt
