// Reading ahead: the rows of the source that a thread will stage next are fetched during the products of the block at
// hand, which leave the memory idle.
#pragma once

#include "winograd_plan.h"

namespace voxelrt::VOXELRT_ISA {

class Ahead {
  public:
    // `first`: the block's first input; `size`: inputs that it stages; `calls`: of next, in all.
    Ahead(const Step &step, const WinogradPlan &p, int64_t n, const Axes &first, const Axes &size, int64_t calls)
        : step_(step), p_(p), n_(n), z_(within(first.z, size.z, p.s.in.z)), y_(within(first.y, size.y, p.s.in.y)),
          x_(within(first.x, size.x, p.s.in.x)), calls_(calls) {
        const int64_t bytes = (x_.end - x_.begin) * kBlock * stored(step.in[kSource0]);
        chunks_ = most(1, (bytes + chunk() / 2) / chunk());
        rows_ = p.in_blocks * (z_.end - z_.begin) * (y_.end - y_.begin);
    }

    // The first of so many lines as there are channels that are worth fetching now; null: none.
    const char *next() {
        const int64_t wanted = rows_ * chunks_;
        if (++called_ * wanted <= made_ * calls_ || made_ == wanted)
            return nullptr;
        const int64_t row = made_ / chunks_, height = y_.end - y_.begin, depth = z_.end - z_.begin;
        const int64_t channel = row / (height * depth), blocks0 = ceil_div(p_.s.channels0, kBlock);
        const Tensor &t = step_.in[channel < blocks0 ? kSource0 : kSource1];
        const int64_t block = channel < blocks0 ? channel : channel - blocks0;
        const int64_t at = n_ * t.strides[0] + block * t.strides[1] + (z_.begin + row / height % depth) * t.strides[2] +
                           (y_.begin + row % height) * t.strides[3] + x_.begin * kBlock;
        return t.data + at * stored(t) + made_++ % chunks_ * chunk();
    }

  private:
    static Span within(int64_t first, int64_t count, int64_t size) {
        const int64_t begin = most(0, first);
        return {begin, most(begin, least(size, first + count))};
    }
    static int64_t stored(const Tensor &t) { return t.dtype == VOXELRT_F32 ? 4 : 2; }
    int64_t chunk() const { return p_.s.in_channels * kLine; }
    static constexpr int64_t kLine = 64;
    const Step &step_;
    const WinogradPlan &p_;
    int64_t n_;
    Span z_, y_, x_;
    int64_t calls_, rows_ = 0, chunks_ = 1, called_ = 0, made_ = 0;
};

// The weights that a thread will multiply next, most likely, in the last runs of tiles of the products at hand: these
// find their own weights in the cache, where the first run has left them.
class WeightsAhead {
  public:
    // `weights`: or null, for none; `runs`: of tiles.
    WeightsAhead(const WinogradPlan &p, const float *weights, int64_t runs)
        : chunk_(p.s.in_channels * kBlock), from_(weights), before_(most(1, runs - kTileBlocks)) {}

    const char *next() {
        const int64_t chunk = called_++ - before_;
        return from_ && chunk >= 0 ? reinterpret_cast<const char *>(from_ + chunk * chunk_) : nullptr;
    }

  private:
    int64_t chunk_; // floats of the lines that one run fetches
    const float *from_;
    int64_t before_, called_ = 0;
};

} // namespace voxelrt::VOXELRT_ISA
