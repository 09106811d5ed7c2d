// Products of recurrent layers in float32: that of the input for all steps at once, and a step's with the last states,
// for a block all gates of sixteen units of eight sequences, so that gates are never written to memory.
#pragma once

#include "cuda.cuh"

namespace voxelrt {

// out (rows, columns) = left (rows, depth) times right (columns, depth) turned over, and a bias of each column. A block
// of 256 threads has 64 rows and columns, a thread four of each.
template <typename Bias>
__device__ inline void input_products(float *out, const float *left, const float *right, long long rows,
                                      long long columns, long long depth, const Bias &bias) {
    constexpr int kTile = 64, kStep = 16;
    __shared__ float a[kStep][kTile + 4], b[kStep][kTile + 4];
    const int thread = (int)threadIdx.x, down = thread / 16, along = thread % 16;
    const long long row = (long long)blockIdx.x * kTile, column = (long long)blockIdx.y * kTile;
    float sums[4][4] = {};
    for (long long start = 0; start < depth; start += kStep) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int at = down + 16 * i;
            const bool more = start + along < depth;
            a[along][at] = more && row + at < rows ? left[(row + at) * depth + start + along] : 0.0f;
            b[along][at] = more && column + at < columns ? right[(column + at) * depth + start + along] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kStep; ++k)
#pragma unroll
            for (int i = 0; i < 16; ++i)
                sums[i / 4][i % 4] = fmaf(a[k][down + 16 * (i / 4)], b[k][along + 16 * (i % 4)], sums[i / 4][i % 4]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const long long r = row + down + 16 * (i / 4), c = column + along + 16 * (i % 4);
        if (r < rows && c < columns)
            out[r * columns + c] = sums[i / 4][i % 4] + bias(c);
    }
}

constexpr int kUnits = 16, kSequences = 8, kChunk = 64, kMostThreads = 256, kMostParts = 3;

// What a block of (columns, slices) threads shares: where each sequence's states lie (null where they are zero), a
// chunk of them, and each slice's sums.
struct Shared {
    const float *from[kMostParts * kSequences];
    float states[kChunk][kSequences];
    float sums[kSequences * kMostThreads];
};

// Sums over the states in `parts` parts, of `hidden` each, of every column: the gates of sixteen units. `weights` are
// those of the block's first column, rows of (parts · hidden) that lie `row` apart.
__device__ inline void state_products(Shared &shared, int parts, long long hidden, const float *weights,
                                      long long row) {
    const int column = (int)threadIdx.x, slice = (int)threadIdx.y, columns = (int)blockDim.x;
    const int slices = (int)blockDim.y, threads = columns * slices;
    float sums[kSequences] = {};
    __syncthreads(); // where the states lie is written
    for (int part = 0; part < parts; ++part)
        for (long long start = 0; start < hidden; start += kChunk) {
            for (int i = slice * columns + column; i < kChunk * kSequences; i += threads) {
                const float *const from = shared.from[part * kSequences + i / kChunk];
                const long long k = start + i % kChunk;
                shared.states[i % kChunk][i / kChunk] = from && k < hidden ? from[k] : 0.0f;
            }
            __syncthreads();
            for (int k = slice; k < kChunk && start + k < hidden; k += slices) {
                const float weight = weights[(part * hidden + start + k) * row + column];
#pragma unroll
                for (int n = 0; n < kSequences; ++n)
                    sums[n] = fmaf(weight, shared.states[k][n], sums[n]);
            }
            __syncthreads();
        }
#pragma unroll
    for (int n = 0; n < kSequences; ++n)
        shared.sums[(slice * kSequences + n) * columns + column] = sums[n];
    __syncthreads();
}

// A column's sum of one sequence, slices in order.
__device__ inline float gate_sum(const Shared &shared, int sequence, int column) {
    float sum = 0.0f;
    for (int slice = 0; slice < (int)blockDim.y; ++slice)
        sum += shared.sums[(slice * kSequences + sequence) * (int)blockDim.x + column];
    return sum;
}

} // namespace voxelrt
