// How the kernels of dot products cut a step: as conv3d.direct does, with all input channels of a box staged at once.
#pragma once

#include "bfloat.h"
#include "dot_pack.h"
#include "task.h"

namespace voxelrt::VOXELRT_ISA {

// ConvParams::algorithm is a DotWay; of the codes that a source is rounded to, `source_signed` says int8 or uint8.
#define INTEGER_PARAMS(S, A) CONV_PARAMS(S, A) S(f32, source_scale) S(i32, source_zero) S(i32, source_signed)
VOXELRT_PARAMS(IntegerParams, INTEGER_PARAMS)

constexpr int kWeightScales = 5; // input of conv3d.int8: a float32 an output channel
constexpr int32_t kPrecisionOf[kDotKinds] = {1, 2};

struct DotPlan {
    ConvPlan p; // `unit`, and with it all that is staged, counts units
    DotKind kind;
    DotWay way;
    int64_t stage_units;
};

static inline bool has_dot_instructions(DotKind kind) {
#if defined(VOXELRT_ISA_avx512)
    static const bool present[kDotKinds] = {__builtin_cpu_supports("avx512bf16") != 0,
                                            __builtin_cpu_supports("avx512vnni") != 0};
    return present[kind];
#else
    return kind != kBfloat && kind != kInteger;
#endif
}

static inline DotPlan dot_plan(const Step &step, DotKind kind) {
    const Tensor &src = step.in[kSource0], &other = step.in[kSource1], &dst = step.out[kDestination];
    const ConvParams &params = step.as<ConvParams>();
    DotPlan d{};
    d.kind = kind;
    d.way = params.algorithm == kWidenedWay || !has_dot_instructions(kind) ? kWidenedWay : kBestWay;
    ConvPlan &p = d.p;
    p.s = blocked_shape(step);
    flatten(step, p.s);
    const ConvShape &s = p.s;
    p.planes = src.layout == VOXELRT_LINEAR;
    p.blocked = dst.layout == VOXELRT_BLOCKED16;
    p.past_caches = p.blocked && outgrows_caches(dst) && in_tile(params.activation, params.alpha, params.beta);
    p.unit = p.planes ? units_of_block(kind, s.in_channels, 0) : dot_units(kind);
    p.in_blocks = p.planes_a_block = p.planes ? 1 : ceil_div(s.in_channels, kBlock);
    p.out_tiles = ceil_div(s.out_channels, kTileChannels);
    p.rows = p.planes || d.way == kWidenedWay ? 1 : choose_rows(s.out.x, s.out.y); // the rows that dot_tile has
    p.rows = p.rows >= 4 ? 4 : p.rows >= 2 ? 2 : 1;
    const bool as_stored = kind == kBfloat && src.dtype == VOXELRT_BF16 && !src.pending() && !other.present();
    p.staged = !as_stored || s.taps() != 1 || s.stride.z * s.stride.y * s.stride.x != 1 || s.in.x != s.out.x ||
               s.in.y != s.out.y || s.in.z != s.out.z;
    choose_residues(p);
    p.chunk = 1;
    choose_box(p);
    choose_tasks(p);
    d.stage_units = p.staged ? ceil_div(p.in_blocks * block_floats(p), kBlock) * kBlock : 0;
    return d;
}

} // namespace voxelrt::VOXELRT_ISA
