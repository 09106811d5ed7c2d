// How a block of conv3d's product gets its operands: runs of 16 bytes from the volume and the weights, held in
// registers while the block multiplies what came before, then made the products' type in shared memory.
#pragma once

#include "cuda.cuh"

namespace conv3d {

constexpr int kThreads = 128, kRows = 128; // of a block, and of its tile
constexpr int kPasses = kRows / 32;        // rows a thread stages; four neighbours share a row

struct Window {
    int size[3], taps[3], stride[3], dilation[3], pad[3], out_y, out_x;
};

// Channels of one group in a volume (N, Z, Y, X, all channels) and their part of the weights (taps, channels, outputs).
template <typename S> struct Source {
    const S *x, *weights;
    const float *scale, *shift; // of the item's first channel of the group; null where nothing is pending
    long long row, begin;       // channels of a voxel, and the first one of the group
    int channels;
};

__device__ inline bool within(int at, int size) {
    return (unsigned)at < (unsigned)size;
}

// A place along the depth of the product: taps, and the channels of each.
struct Depth {
    int channel, kz, ky, kx;
    __device__ void advance(int by, int channels, const int *taps) {
        channel += by;
        while (channel >= channels) { // once, but for sources of few channels
            channel -= channels;
            if (++kx == taps[2]) {
                kx = 0;
                if (++ky == taps[1]) {
                    ky = 0;
                    ++kz;
                }
            }
        }
    }
};

template <typename S> struct alignas(16) Run { // what one load brings
    static constexpr int count = 16 / sizeof(S);
    S at[count];
};

template <typename S> __device__ bool wide(const S *data, long long row, long long begin, int count) {
    constexpr int run = Run<S>::count;
    return row % run == 0 && begin % run == 0 && count % run == 0 && (unsigned long long)data % 16 == 0;
}

// A thread's share of the left factor: `kPasses` rows, a run of each along the depth.
template <typename S> struct Rows {
    static constexpr int count = Run<S>::count, depth = 4 * count; // of a thread, and of a step of the block
    int z[kPasses], y[kPasses], x[kPasses];
    long long origin[kPasses]; // of the window, in voxels; perhaps before the volume, where nothing is loaded
    Run<S> held[kPasses];
    unsigned inside; // which elements lie in the volume, a bit each
    float scale[count], shift[count];
    Depth at;

    __device__ void place(const Window &w, long long item, long long first, long long positions) {
        for (int p = 0; p < kPasses; ++p) {
            const long long i = first + threadIdx.x / 4 + 32 * p;
            z[p] = i < positions ? (int)(i / ((long long)w.out_y * w.out_x)) * w.stride[0] - w.pad[0] : -(1 << 30);
            y[p] = (int)(i / w.out_x % w.out_y) * w.stride[1] - w.pad[1];
            x[p] = (int)(i % w.out_x) * w.stride[2] - w.pad[2];
            origin[p] = ((item * w.size[0] + z[p]) * w.size[1] + y[p]) * w.size[2] + x[p];
        }
    }

    __device__ void start(const Source<S> &s, const Window &w) {
        at = {0, 0, 0, 0};
        at.advance((int)threadIdx.x % 4 * count, s.channels, w.taps);
    }

    // The next step's runs; those of a step whose channels are one after another and aligned come whole.
    __device__ void load(const Source<S> &s, const Window &w, bool whole) {
        inside = 0;
        Depth to = at;
        if (whole) {
            element(s, w, to, 0, true);
        } else {
#pragma unroll
            for (int e = 0; e < count; ++e) {
                element(s, w, to, e, false);
                to.advance(1, s.channels, w.taps);
            }
        }
        at.advance(depth, s.channels, w.taps);
    }

    // Element e of each row's run, or all of them.
    __device__ void element(const Source<S> &s, const Window &w, const Depth &to, int e, bool whole) {
        const int kz = to.kz * w.dilation[0], ky = to.ky * w.dilation[1], kx = to.kx * w.dilation[2];
        const long long away = ((long long)kz * w.size[1] + ky) * w.size[2] + kx;
        const bool more = to.kz < w.taps[0];
        if (s.scale && more)
#pragma unroll
            for (int i = 0; i < count; ++i)
                if (whole || i == e) {
                    scale[i] = s.scale[to.channel + (whole ? i : 0)];
                    shift[i] = s.shift[to.channel + (whole ? i : 0)];
                }
#pragma unroll
        for (int p = 0; p < kPasses; ++p) {
            const bool there =
                more && within(z[p] + kz, w.size[0]) && within(y[p] + ky, w.size[1]) && within(x[p] + kx, w.size[2]);
            const S *const from = s.x + (origin[p] + away) * s.row + s.begin + to.channel;
            if (whole)
                held[p] = there ? *(const Run<S> *)from : Run<S>{};
            else
                held[p].at[e] = there ? *from : voxelrt::from_float<S>(0.0f);
            inside |= (there ? whole ? (1u << count) - 1u : 1u << e : 0u) << p * count;
        }
    }

    // What is pending is applied to what lies in the volume; padding stays zero.
    template <typename P> __device__ void store(typename P::Number *tile, int pitch, bool pending, float slope) const {
        struct alignas(sizeof(typename P::Number) * count) Made {
            typename P::Number at[count];
        };
#pragma unroll
        for (int p = 0; p < kPasses; ++p) {
            Made made;
#pragma unroll
            for (int e = 0; e < count; ++e) {
                float value = voxelrt::to_float(held[p].at[e]);
                if (pending) {
                    value = fmaf(value, scale[e], shift[e]);
                    value = value < 0.0f ? value * slope : value;
                    value = inside >> (p * count + e) & 1u ? value : 0.0f;
                }
                made.at[e] = P::made(value);
            }
            *(Made *)(tile + (threadIdx.x / 4 + 32 * p) * pitch + threadIdx.x % 4 * count) = made;
        }
    }
};

// A thread's share of the right factor, `columns` of a step's rows of weights.
template <typename S, int columns> struct Weights {
    static constexpr int count = Run<S>::count, across = columns / count, depth = 4 * count;
    static constexpr int passes = (depth * across + kThreads - 1) / kThreads;
    Run<S> held[passes];

    __device__ void load(const Source<S> &s, long long first, long long rows, int column, int outputs, bool whole) {
#pragma unroll
        for (int p = 0; p < passes; ++p) {
            const int run = (int)threadIdx.x + p * kThreads, o = column + run % across * count;
            const long long row = first + run / across;
            const S *const from = s.weights + row * outputs + o;
            const bool there = run < depth * across && row < rows;
            if (whole) {
                held[p] = there && o < outputs ? *(const Run<S> *)from : Run<S>{};
                continue;
            }
#pragma unroll
            for (int e = 0; e < count; ++e)
                held[p].at[e] = there && o + e < outputs ? from[e] : voxelrt::from_float<S>(0.0f);
        }
    }

    template <typename P> __device__ void store(typename P::Number *tile, int pitch) const {
        struct alignas(sizeof(typename P::Number) * count) Made {
            typename P::Number at[count];
        };
#pragma unroll
        for (int p = 0; p < passes; ++p) {
            const int run = (int)threadIdx.x + p * kThreads;
            if (depth * across % kThreads != 0 && run >= depth * across)
                continue;
            Made made;
#pragma unroll
            for (int e = 0; e < count; ++e)
                made.at[e] = P::made(voxelrt::to_float(held[p].at[e]));
            *(Made *)(tile + run / across * pitch + run % across * count) = made;
        }
    }
};

} // namespace conv3d
