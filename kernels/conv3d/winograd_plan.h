// How conv3d.winograd cuts a step: tiles of outputs, blocks of tiles. Depends on the step alone, never on the threads.
#pragma once

#include "block.h"
#include "contract.h"
#include "conv_tile.h"
#include "packed_channels.h"
#include "winograd_tile.h"

namespace voxelrt::VOXELRT_ISA {

#define WINOGRAD_PARAMS(S, A) CONV_PARAMS(S, A) A(i32, tile, 3) A(i32, block, 3)
VOXELRT_PARAMS(WinogradParams, WINOGRAD_PARAMS)

enum WinogradAlgorithm {
    kPrivateBlocks = 1, // a task takes a block of tiles through all phases, in memory of its own that fits the L2
    kSharedBlocks = 2,  // all threads take a block through one phase after the other, each reading its own weights
};
constexpr int64_t kMostBlockTiles = 1 << 14;
constexpr int64_t kMostBlockFloats = int64_t(1) << 28;
// Memory of one worker: the columns of a tile between two axes, and outputs before they are rounded; then what is
// staged of the inputs.
constexpr int64_t kWorkFloats = 2 * kMostTilePoints * kBlock;

struct WinogradPlan {
    ConvShape s; // in_channels counts packed ones
    const TileKind *kind;
    bool shared, past_caches;
    int64_t points, in_blocks, out_blocks, out_tiles; // out_tiles: runs of kTileChannels output channels
    Axes tiles, block, blocks;
    int64_t block_tiles; // at most
    int64_t slot;        // floats of one point of a block
    int64_t work_floats; // of a worker
    int64_t output_slot; // shared: floats of one point of the products; they lie behind the inputs
};

static const TileKind *tile_kind(const WinogradParams &p) {
    for (const TileKind &kind : kTileKinds) {
        bool same = true;
        for (int i = 0; i < 3; ++i)
            same = same && kind.taps[i] == p.kernel[i] && kind.stride[i] == p.stride[i] && kind.out[i] == p.tile[i];
        if (same)
            return &kind;
    }
    return nullptr;
}

static int64_t point_count(const TileKind &kind) {
    return int64_t(kind.points[0]) * kind.points[1] * kind.points[2];
}

// Inputs along an axis of so many tiles.
static int64_t staged_length(const TileKind &kind, int axis, int64_t tiles) {
    return (tiles - 1) * kind.out[axis] * kind.stride[axis] + kind.in[axis];
}

static WinogradPlan winograd_plan(const Step &step) {
    const WinogradParams &params = step.as<WinogradParams>();
    const Tensor &dst = step.out[kDestination];
    WinogradPlan p{};
    p.s = blocked_shape(step);
    p.kind = tile_kind(params);
    p.shared = params.algorithm == kSharedBlocks;
    p.past_caches = outgrows_caches(dst) && in_tile(params.activation, params.alpha, params.beta);
    p.points = point_count(*p.kind);
    p.in_blocks = ceil_div(p.s.in_channels, kBlock);
    p.out_blocks = ceil_div(p.s.out_channels, kBlock);
    p.out_tiles = ceil_div(p.s.out_channels, kTileChannels);
    for (int i = 0; i < 3; ++i) {
        p.tiles[i] = ceil_div(p.s.out[i], p.kind->out[i]);
        p.block[i] = ceil_div(p.tiles[i], ceil_div(p.tiles[i], params.block[i])); // of nearly equal size
        p.blocks[i] = ceil_div(p.tiles[i], p.block[i]);
    }
    p.block_tiles = p.block.z * p.block.y * p.block.x;
    const int64_t line = kBlock; // a slot ends in a line of its own, or all slots would meet in the same cache sets
    p.slot = (p.shared ? p.in_blocks : most(p.in_blocks, p.out_blocks)) * p.block_tiles * kBlock + line;
    p.output_slot = p.shared ? p.out_blocks * p.block_tiles * kBlock + line : p.slot;
    p.work_floats = kWorkFloats + p.kind->in[0] * staged_length(*p.kind, 1, p.shared ? 1 : p.block.y) *
                                      staged_length(*p.kind, 2, p.block.x) * kBlock;
    return p;
}

// Floats of the transformed block; a private one has the products in the place of the inputs, one slot lower.
static int64_t block_floats(const WinogradPlan &p) {
    return p.shared ? p.points * (p.slot + p.output_slot) : (p.points + 1) * p.slot;
}

static Message check_winograd(const Step &step) {
    const AsFloat32 seen(step); // source and destination may be stored in bfloat16: the arithmetic stays float32
    if (Message message = check_conv(seen.step, kPrivateBlocks, kSharedBlocks))
        return message;
    if (step.as<ConvParams>().precision != 0)
        return "multiplies in float32: precision is 0";
    const WinogradParams &params = step.as<WinogradParams>();
    const Tensor &src = step.in[kSource0], &other = step.in[kSource1], &weights = step.in[kWeights],
                 &residual = step.input(kResidual), &dst = step.out[kDestination];
    const TileKind *kind = tile_kind(params);
    if (!kind)
        return fail("there are no tiles of %d x %d x %d outputs for this kernel and stride", params.tile[0],
                    params.tile[1], params.tile[2]);
    if (params.groups != 1 || params.dilation[0] != 1 || params.dilation[1] != 1 || params.dilation[2] != 1)
        return "takes one group and no dilation";
    if (seen.in[kSource0].dtype != VOXELRT_F32 || weights.dtype != VOXELRT_F32)
        return "takes volumes of float32 or bfloat16, and packed weights";
    if (residual.present() && residual.dtype != VOXELRT_F32)
        return "takes a residual of float32";
    if (!blocked_rows(src) || (other.present() && !blocked_rows(other)) || !blocked_rows(dst) ||
        (residual.present() && !blocked_rows(residual)))
        return "takes blocked volumes without gaps along x";
    if (src.dims[1] < 1)
        return "the source has no channels";
    if (Message message = check_statistics(seen.step))
        return message;
    if (empty(dst))
        return nullptr;
    if (Message message = check_strides(step))
        return message;
    for (int i = 0; i < 3; ++i)
        if (params.block[i] < 1 || params.block[i] > kMostBlockTiles)
            return fail("a block of %d tiles along axis %d", params.block[i], i);
    if (int64_t(params.block[0]) * params.block[1] > kMostBlockTiles ||
        int64_t(params.block[0]) * params.block[1] * params.block[2] > kMostBlockTiles)
        return "a block of too many tiles";
    const WinogradPlan p = winograd_plan(step);
    int64_t wanted, floats;
    if (__builtin_mul_overflow(p.points * p.s.in_channels, p.out_blocks * kBlock, &wanted) || weights.rank != 1 ||
        !weights.contiguous() || weights.dims[0] < wanted)
        return "the packed weights are too short";
    if (__builtin_mul_overflow(p.points + 1, p.slot + p.output_slot, &floats) || floats > kMostBlockFloats ||
        p.work_floats > kMostBlockFloats)
        return "a block takes too much memory";
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
