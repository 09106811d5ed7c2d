// conv3d, channels last: an implicit product of matrices, (positions, taps x channels) by (taps x channels, outputs).
// A block has a tile of 128 positions and 64 or 16 outputs; no patch matrix is written. Depth-wise without a product.
#include "cuda.cuh"

#include "depthwise.cuh"
#include "moments.cuh"
#include "products.cuh"
#include "staging.cuh"

namespace conv3d {

// What is done with the sums of a tile.
template <typename S> struct Epilogue {
    S *out;
    const float *bias;
    const S *residual;
    float *means, *squares;
    long long outputs_all, positions, item, first; // channels of a position, and where the tile begins
    int column, outputs, number;                   // the first output of the tile in its group, of so many
    long long group_start;
    float alpha, beta;
};

template <typename S> struct Call {
    Source<S> first, second;
    int count;
    float slope;
};

// The sums of a tile over one source. Two tiles of each factor are in shared memory: one is multiplied while the next
// step's operands are on their way, and a barrier a step keeps both apart.
template <typename S, typename P, int columns, int m, int n>
__device__ void add_source(float (*sums)[n][4], const Source<S> &s, const Window &w, Rows<S> &rows, int column,
                           int outputs, float slope, typename P::Number *a, typename P::Number *b) {
    constexpr int depth = Rows<S>::depth, pad = 16 / sizeof(typename P::Number);
    constexpr int a_pitch = depth + pad, b_pitch = columns + 8, warps_across = columns / (8 * n);
    const long long total = (long long)w.taps[0] * w.taps[1] * w.taps[2] * s.channels;
    const bool whole = wide(s.x, s.row, s.begin, s.channels), whole_weights = wide(s.weights, 0, 0, outputs);
    const int warp = (int)threadIdx.x / 32;
    const int my_row = warp / warps_across * 16 * m, my_column = warp % warps_across * 8 * n;
    Weights<S, columns> weights;
    rows.start(s, w);
    for (long long start = -depth; start < total; start += depth) {
        const int now = (int)(start / depth) & 1, next = now ^ 1;
        if (start + depth < total) {
            rows.load(s, w, whole);
            weights.load(s, start + depth, total, column, outputs, whole_weights);
        }
        if (start >= 0)
            Product<P, m, n, depth>::add(sums, a + now * kRows * a_pitch + my_row * a_pitch, a_pitch,
                                         b + now * depth * b_pitch + my_column, b_pitch);
        if (start + depth < total) {
            rows.template store<P>(a + next * kRows * a_pitch, a_pitch, s.scale != nullptr, slope);
            weights.template store<P>(b + next * depth * b_pitch, b_pitch);
        }
        __syncthreads();
    }
}

// A warp's share of a tile, m times 16 rows of 8 n columns: where each lane's column lies, whose sums it finishes.
template <typename S, int columns, int m, int n> struct Finish {
    static constexpr int across = 8 * n, abreast = 32 / across; // columns, and rows that a warp's lanes have at once
    static constexpr int warps_across = columns / across, warps_along = 4 / warps_across;
    const Epilogue<S> &e;
    int lane, along, column, row; // the lane, the warp along the rows; the lane's column of the tile and first row

    __device__ Finish(const Epilogue<S> &all) : e(all) {
        const int warp = (int)threadIdx.x / 32;
        lane = (int)threadIdx.x % 32, along = warp / warps_across;
        column = warp % warps_across * across + lane % across, row = along * 16 * m + lane / across;
    }

    __device__ bool held(int r) const { return e.first + row + r < e.positions && e.column + column < e.outputs; }
    __device__ long long place(int r) const {
        return (e.item * e.positions + e.first + row + r) * e.outputs_all + e.group_start + e.column + column;
    }

    // Through shared memory, so that a warp stores neighbouring channels. Gives the sum of what the lane stored.
    __device__ float write(const float (*sums)[n][4], float *scratch) const {
        float *const mine = scratch + threadIdx.x / 32 * 16 * (across + 1);
        const bool there = e.column + column < e.outputs;
        const float bias = e.bias && there ? e.bias[e.group_start + e.column + column] : 0.0f;
        float total = 0.0f;
#pragma unroll 1
        for (int i = 0; i < m; ++i) {
            __syncwarp();
#pragma unroll
            for (int k = 0; k < m; ++k) // registers have no index
                if (k == i)
#pragma unroll
                    for (int j = 0; j < 4 * n; ++j)
                        mine[(lane / 4 + j % 4 / 2 * 8) * (across + 1) + j / 4 * 8 + lane % 4 * 2 + j % 2] =
                            sums[k][j / 4][j % 4];
            __syncwarp();
#pragma unroll 1
            for (int r = 0; r < 16; r += abreast) {
                if (!held(16 * i + r))
                    continue;
                const long long at = place(16 * i + r);
                float sum = mine[(lane / across + r) * (across + 1) + lane % across] + bias;
                sum += e.residual ? voxelrt::to_float(e.residual[at]) : 0.0f;
                const S made = voxelrt::from_float<S>(voxelrt::activate(e.number, sum, e.alpha, e.beta));
                e.out[at] = made;
                total += voxelrt::to_float(made);
            }
        }
        return total;
    }

    // The sum over a column's rows of the tile, for all of its lanes; in a fixed order.
    __device__ float together(float part, float *scratch) const {
        __syncthreads();
        scratch[(along * abreast + lane / across) * columns + column] = part;
        __syncthreads();
        float total = 0.0f;
        for (int k = 0; k < warps_along * abreast; ++k)
            total += scratch[k * columns + column];
        return total;
    }

    // The tile's mean and sum of squared differences to it, of each channel, of what was stored.
    __device__ void write_moments(float part, float *scratch) const {
        const long long left = e.positions - e.first;
        const float mean = together(part, scratch) / (float)(left < kRows ? left : kRows);
        float square = 0.0f;
        for (int r = 0; r < 16 * m; r += abreast) {
            const float away = held(r) ? voxelrt::to_float(e.out[place(r)]) - mean : 0.0f;
            square = fmaf(away, away, square);
        }
        square = together(square, scratch);
        if (along == 0 && lane < across && e.column + column < e.outputs) {
            const long long at = (e.item * gridDim.x + blockIdx.x) * e.outputs_all + e.group_start + e.column + column;
            e.means[at] = mean;
            e.squares[at] = square;
        }
    }
};

template <typename S, typename P, int columns>
__device__ void convolve(const Call<S> &call, const Window &w, const Epilogue<S> &e) {
    constexpr int m = columns == 64 ? 4 : 2, n = columns == 64 ? 4 : 2; // of a warp's share
    constexpr int depth = Rows<S>::depth, pad = 16 / sizeof(typename P::Number);
    __shared__ __align__(16) typename P::Number a[2 * kRows * (depth + pad)], b[2 * depth * (columns + 8)];
    float sums[m][n][4] = {};
    Rows<S> rows;
    rows.place(w, e.item, e.first, e.positions);
#pragma unroll 1
    for (int i = 0; i < call.count; ++i) {
        const Source<S> source = i ? call.second : call.first;
        add_source<S, P, columns, m, n>(sums, source, w, rows, e.column, e.outputs, call.slope, a, b);
    }
    const Finish<S, columns, m, n> finish(e);
    const float total = finish.write(sums, (float *)a);
    if (e.means)
        finish.write_moments(total, (float *)a);
}

} // namespace conv3d

// Two blocks: left to itself ptxas aims at more and spills.
#define VOXELRT_CONV3D(storage, S, product, P, columns)                                                                \
    extern "C" __global__ void __launch_bounds__(128, 2) voxelrt_conv3d_##storage##_##product##_##columns(             \
        S *out, const S *x0, const S *weights0, const float *scale0, const float *shift0, const S *x1,                 \
        const S *weights1, const float *scale1, const float *shift1, const float *bias, const S *residual,             \
        float *means, float *squares, long long all0, long long all1, long long outputs_all, long long positions,      \
        int channels0, int channels1, int outputs, int groups, int flags, int size_z, int size_y, int size_x,          \
        int out_y, int out_x, int taps_z, int taps_y, int taps_x, int stride_z, int stride_y, int stride_x,            \
        int dilation_z, int dilation_y, int dilation_x, int pad_z, int pad_y, int pad_x, float slope, int number,      \
        float alpha, float beta) {                                                                                     \
        const long long group = blockIdx.z % groups, item = blockIdx.z / groups;                                       \
        const long long taps = (long long)taps_z * taps_y * taps_x, begin = group * channels0;                         \
        const bool pending = flags & 1;                                                                                \
        const conv3d::Call<S> call = {                                                                                 \
            {x0, weights0 + group * taps * channels0 * outputs, pending ? scale0 + item * all0 + begin : nullptr,      \
             shift0 + item * all0 + begin, all0, begin, channels0},                                                    \
            {x1, weights1, pending ? scale1 + item * all1 : nullptr, shift1 + item * all1, all1, 0, channels1},        \
            flags & 2 ? 2 : 1,                                                                                         \
            slope};                                                                                                    \
        const conv3d::Window window = {{size_z, size_y, size_x},                                                       \
                                       {taps_z, taps_y, taps_x},                                                       \
                                       {stride_z, stride_y, stride_x},                                                 \
                                       {dilation_z, dilation_y, dilation_x},                                           \
                                       {pad_z, pad_y, pad_x},                                                          \
                                       out_y,                                                                          \
                                       out_x};                                                                         \
        conv3d::convolve<S, conv3d::P, columns>(call, window,                                                          \
                                                {out, flags & 4 ? bias : nullptr, flags & 8 ? residual : nullptr,      \
                                                 flags & 16 ? means : nullptr, squares, outputs_all, positions, item,  \
                                                 (long long)blockIdx.x * conv3d::kRows, (int)blockIdx.y * columns,     \
                                                 outputs, number, group * outputs, alpha, beta});                      \
    }
#define VOXELRT_CONV3D_TILES(storage, S, product, P)                                                                   \
    VOXELRT_CONV3D(storage, S, product, P, 64)                                                                         \
    VOXELRT_CONV3D(storage, S, product, P, 16)

VOXELRT_CONV3D_TILES(f32, float, fp32, Fp32)
VOXELRT_CONV3D_TILES(f32, float, tf32, Tf32)
VOXELRT_CONV3D_TILES(f32, float, fp16, Fp16)
VOXELRT_CONV3D_TILES(f32, float, bf16, Bf16)
VOXELRT_CONV3D_TILES(f16, __half, fp16, Fp16)
VOXELRT_CONV3D_TILES(bf16, __nv_bfloat16, bf16, Bf16)

#define VOXELRT_CONV3D_DEPTHWISE(storage, S)                                                                           \
    extern "C" __global__ void __launch_bounds__(256, 2) voxelrt_conv3d_depthwise_##storage(                           \
        S *out, const S *x, const S *weights, const float *scale, const float *shift, const float *bias,               \
        const S *residual, long long channels, int flags, int size_z, int size_y, int size_x, int out_z, int out_y,    \
        int out_x, int taps_z, int taps_y, int taps_x, int stride_z, int stride_y, int stride_x, int dilation_z,       \
        int dilation_y, int dilation_x, int pad_z, int pad_y, int pad_x, float slope, int number, float alpha,         \
        float beta) {                                                                                                  \
        const conv3d::Window window = {{size_z, size_y, size_x},                                                       \
                                       {taps_z, taps_y, taps_x},                                                       \
                                       {stride_z, stride_y, stride_x},                                                 \
                                       {dilation_z, dilation_y, dilation_x},                                           \
                                       {pad_z, pad_y, pad_x},                                                          \
                                       out_y,                                                                          \
                                       out_x};                                                                         \
        conv3d::depthwise<S>({out, x, weights, flags & 1 ? scale : nullptr, shift, flags & 4 ? bias : nullptr,         \
                              flags & 8 ? residual : nullptr, channels, out_z, number, slope, alpha, beta},            \
                             window);                                                                                  \
    }
VOXELRT_CONV3D_DEPTHWISE(f32, float)
VOXELRT_CONV3D_DEPTHWISE(f16, __half)
VOXELRT_CONV3D_DEPTHWISE(bf16, __nv_bfloat16)

VOXELRT_MERGE_MOMENTS(voxelrt_conv3d_merge)
