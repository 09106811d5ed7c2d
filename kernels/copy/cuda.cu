// copy: one thread an element of the output, which has no gaps; the input may have any strides, mirrored ones too.
#include "cuda.cuh"

#define VOXELRT_COPY(suffix, T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        voxelrt_copy_##suffix(T *out, const T *in, long long count, long long n1, long long n2, long long n3,          \
                              long long n4, long long s0, long long s1, long long s2, long long s3, long long s4) {    \
        for (long long i = voxelrt::global_thread(); i < count; i += voxelrt::global_threads()) {                      \
            long long rest = i, at = rest % n4 * s4;                                                                   \
            rest /= n4;                                                                                                \
            at += rest % n3 * s3;                                                                                      \
            rest /= n3;                                                                                                \
            at += rest % n2 * s2;                                                                                      \
            rest /= n2;                                                                                                \
            out[i] = in[at + rest % n1 * s1 + rest / n1 * s0];                                                         \
        }                                                                                                              \
    }

VOXELRT_COPY(b8, unsigned char)
VOXELRT_COPY(b16, unsigned short)
VOXELRT_COPY(b32, unsigned int)
VOXELRT_COPY(b64, unsigned long long)
