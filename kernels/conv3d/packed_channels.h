#pragma once

#include "conv_shape.h"

namespace voxelrt::VOXELRT_ISA {

// The input channels of packed weights: with two sources the first one's are filled up to whole blocks.
struct PackedChannels {
    int64_t first, filled, all;
    PackedChannels(int64_t groups, int64_t channels0, int64_t in) {
        const bool two = groups == 1 && channels0 > 0 && channels0 < in;
        first = two ? channels0 : in;
        filled = two ? ceil_div(first, kBlock) * kBlock : in;
        all = filled + in - first;
    }
    // The raw channel of a packed one, or -1 where there is none.
    int64_t raw(int64_t packed) const {
        return packed < first ? packed : packed < filled ? -1 : packed - filled + first;
    }
};

} // namespace voxelrt::VOXELRT_ISA
