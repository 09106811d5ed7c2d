// The inner kernel of the convolutions: a tile of output positions for one or two blocks of output channels, kept in
// registers over all taps and input channels. conv3d defines the tiles; conv_transpose3d uses the same ones, since a
// transposed convolution is an ordinary one for each phase of its stride.
#pragma once

#include "activation.h"

namespace voxelrt::VOXELRT_ISA {

// Where a tap of one axis reads, in floats from the first, and how many units of weights it lies behind the first.
struct Tap {
    int64_t src, weight;
};

// Position (r, x) of the tile reads src + r * src_row + x * (16, or 1 for planes) and writes
// dst + r * dst_row + x * dst_x, for each of `blocks` blocks of input channels and each tap.
struct Tile {
    const float *src, *weights;
    const Tap *z, *y, *x; // the taps of each axis
    int64_t nz, ny, nx;
    int64_t blocks, src_block, weight_block;
    int64_t inner, inner_last; // input channels of a block, of the last block
    int64_t inner_step;        // floats between them in planes; blocked sources have 1
    int64_t unit, unit_last;   // floats of weights a tap
    int64_t src_row, dst_row, dst_x, dst_block;
    float *dst;
    const float *start;    // what the sums begin with, one value an output channel; null: with what dst holds
    const float *residual; // added at the end, laid out with the steps below; or null
    int64_t residual_row, residual_block;
    float *statistics;   // sums, then sums of squares of the tile's channels, to which finished ones are added; or null
    bool finish;         // the sums are complete: apply what follows
    bool past_caches;    // finished sums are not read again soon: dst, aligned to 64 bytes, is written past the caches
    int keep;            // channels of the tile's last block; the rest are stored as zeros
    float slope, lo, hi; // x < 0 ? slope x : x, then into [lo, hi]
};
using TileFunction = void (*)(const Tile &);

constexpr int kTileBlocks = kVectorRegisters / kRegistersPerBlock >= 32 ? 2 : 1; // blocks of output channels a tile
constexpr int kTileChannels = kTileBlocks * kBlock;
// Registers: one for each position and block, the weights, and one for the input.
constexpr int kTileX = (kVectorRegisters - kTileBlocks * kRegistersPerBlock - 1) / (kTileBlocks * kRegistersPerBlock);
// Rows of a tile as narrow as x: as many as fit, at most four.
constexpr int tile_rows(int64_t x) {
    return x <= 0 || x > kTileX ? 1 : kTileX / x > 4 ? 4 : static_cast<int>(kTileX / x);
}

// Whether tiles of so many rows and positions exist.
constexpr bool has_rows(int64_t rows, int64_t x) {
    return rows == 1 || (x <= kTileX / 2 && (rows == 2 || rows == tile_rows(x)));
}
// Rows of the tiles over a volume of x by y: rather two and two than three and one.
constexpr int choose_rows(int64_t x, int64_t y) {
    const int rows = tile_rows(x);
    return rows == 3 && y % 3 == 1 ? 2 : y < rows && y > 1 ? 2 : rows;
}

// The tile of `blocks` (1 to kTileBlocks) blocks, `rows` (see has_rows) rows and x (1 to kTileX) positions; planes: the
// source has one channel a plane, read along x, and rows is 1.
TileFunction conv_tile(int blocks, int rows, int x, bool planes);

// Whether a volume is so large that what is written of it leaves the caches before it is read.
static inline bool outgrows_caches(const Tensor &t) {
    constexpr int64_t bytes = 64 << 20;
    bool aligned = reinterpret_cast<uintptr_t>(t.data) % 64 == 0;
    for (int i = 0; i < 5; ++i)
        aligned = aligned && t.strides[i] % kBlock == 0;
    return aligned && t.count() * 4 >= bytes;
}

// Activations that a tile applies to its sums; the others are applied to finished rows.
static inline bool in_tile(int activation, float alpha, float beta) {
    return activation == kNoActivation || activation == kRelu || activation == kLeakyRelu ||
           (activation == kClip && alpha <= beta);
}
static inline void set_epilogue(int activation, float alpha, float beta, Tile &t) {
    constexpr float infinity = __builtin_inff();
    const bool clips = activation == kClip && alpha <= beta;
    t.slope = activation == kLeakyRelu ? alpha : 1.0f;
    t.lo = activation == kRelu ? 0.0f : clips ? alpha : -infinity;
    t.hi = clips ? beta : infinity;
}
// `count` finished positions of a block, `step` floats apart, of whose channels `keep` are real.
static inline void activate_positions(int activation, float alpha, float beta, float *first, int64_t count,
                                      int64_t step, int64_t keep) {
    if (in_tile(activation, alpha, beta))
        return;
    if (step == kBlock)
        activate_row(activation, alpha, beta, first, count * kBlock);
    else
        for (int64_t x = 0; x < count; ++x)
            activate_row(activation, alpha, beta, first + x * step, kBlock);
    if (keep == kBlock)
        return;
    const vm16 real = first_lanes(static_cast<int>(keep));
    for (int64_t x = 0; x < count; ++x)
        store(first + x * step, select(real, load(first + x * step), zero()));
}

} // namespace voxelrt::VOXELRT_ISA
