// What every cuda.cu includes first. The same file compiles with nvcc and, under the tests' shim, with a C++ compiler.
//
// Entries are `extern "C" __global__ void voxelrt_<op>_<what>(...)`: pointers, then sizes and strides as long long,
// then numbers. No <<<>>>, no host code, no textures, no inline PTX outside this header.
#pragma once

#ifndef VOXELRT_SHIM
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define VOXELRT_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace voxelrt {

// The thread's place in the whole grid along x, and the number of threads there: loops step by it past 2^31 elements.
__device__ inline long long global_thread() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}
__device__ inline long long global_threads() {
    return (long long)gridDim.x * blockDim.x;
}

__device__ inline float to_float(float x) {
    return x;
}
__device__ inline float to_float(__half x) {
    return __half2float(x);
}
__device__ inline float to_float(__nv_bfloat16 x) {
    return __bfloat162float(x);
}
template <typename T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x) {
    return x;
}
template <> __device__ inline __half from_float<__half>(float x) {
    return __float2half_rn(x);
}
template <> __device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

} // namespace voxelrt

#include "activation.cuh"
