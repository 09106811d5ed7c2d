// CUDA on the CPU: what a cuda.cu needs so that a C++ compiler makes of it a program that runs here, under sanitizers.
//
// A block is a set of fibers, one a CUDA thread, that switch at barriers; a scheduler picks who goes on, in ascending,
// descending or a seeded random order. Blocks run one after another. The real CUDA headers give __half and its kin.
#pragma once
#define VOXELRT_SHIM 1
#include <cuda_runtime.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#undef __global__
#undef __device__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __forceinline__
#undef __restrict__
#define __global__
#define __device__
#define __shared__ static
#define __constant__ static
#define __launch_bounds__(...)
#define __forceinline__ inline

namespace voxelrt_shim {

struct Thread {
    uint3 index;
    unsigned linear, lane, warp;
};
extern Thread *current;
extern dim3 block_dim, grid_dim;
extern uint3 block_index;

void block_barrier();
// Waits for the warp's live threads; `mask` must name all of them that are in the block.
void warp_barrier(unsigned mask);
// 64 bytes of each lane of the current warp, for shuffles and for matrix products of a warp.
unsigned char *lane_slot(unsigned lane);
unsigned char *dynamic_shared();
unsigned live_lanes();

template <typename T> T exchange(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 64, "a lane's slot has 64 bytes");
    std::memcpy(lane_slot(current->lane), &value, sizeof value);
    warp_barrier(mask);
    T taken;
    std::memcpy(&taken, lane_slot(from), sizeof taken);
    warp_barrier(mask);
    return taken;
}

} // namespace voxelrt_shim

#define threadIdx (voxelrt_shim::current->index)
#define blockIdx (voxelrt_shim::block_index)
#define blockDim (voxelrt_shim::block_dim)
#define gridDim (voxelrt_shim::grid_dim)
#define warpSize 32
#define VOXELRT_DYNAMIC_SHARED(name) unsigned char *const name = voxelrt_shim::dynamic_shared()

inline void __syncthreads() {
    voxelrt_shim::block_barrier();
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    voxelrt_shim::warp_barrier(mask);
}
inline void __threadfence() {}

template <typename T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    const unsigned base = voxelrt_shim::current->lane & ~(unsigned)(width - 1);
    return voxelrt_shim::exchange(mask, value, base + ((unsigned)from & (unsigned)(width - 1)));
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const unsigned lane = voxelrt_shim::current->lane, other = lane ^ (unsigned)bits;
    return voxelrt_shim::exchange(mask, value, other / width > lane / width ? lane : other);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = voxelrt_shim::current->lane, other = lane + delta;
    return voxelrt_shim::exchange(mask, value, other / width != lane / width ? lane : other);
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = voxelrt_shim::current->lane;
    return voxelrt_shim::exchange(mask, value, lane % width < delta ? lane : lane - delta);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        if ((mask & voxelrt_shim::live_lanes()) >> lane & 1u)
            votes |= (voxelrt_shim::exchange(mask, predicate, lane) ? 1u : 0u) << lane;
    return votes;
}

template <typename T> T __ldg(const T *p) {
    return *p;
}
template <typename T> T atomicAdd(T *p, T value) {
    const T old = *p;
    *p = old + value;
    return old;
}
inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
inline float __expf(float x) {
    return expf(x);
}
inline float __logf(float x) {
    return logf(x);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __saturatef(float x) {
    return fminf(fmaxf(x, 0.0f), 1.0f);
}
inline int __float2int_rd(float x) {
    return (int)floorf(x);
}
inline int __float2int_rn(float x) {
    return (int)nearbyintf(x);
}
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline float __int_as_float(int x) {
    float f;
    std::memcpy(&f, &x, 4);
    return f;
}
inline int __float_as_int(float f) {
    int x;
    std::memcpy(&x, &f, 4);
    return x;
}
template <typename T> T min(T a, T b) {
    return b < a ? b : a;
}
template <typename T> T max(T a, T b) {
    return a < b ? b : a;
}
