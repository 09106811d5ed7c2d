// A recurrent layer as chains: one direction and a few rows of the batch, whose states live in the scratch of a step.
#pragma once

#include "lstm/cells.h"
#include "lstm/tile.h"

#include <cstring>
#include <initializer_list>

namespace voxelrt::VOXELRT_ISA {

// clip: infinity for none. functions, alpha, beta: f, g and h of each direction.
#define LSTM_PARAMS(S, A)                                                                                              \
    S(i32, cell)                                                                                                       \
    S(i32, direction)                                                                                                  \
    S(i32, hidden)                                                                                                     \
    S(i32, reset_behind) S(i32, input_forget) S(f32, clip) A(i32, functions, 6) A(f32, alpha, 6) A(f32, beta, 6)
VOXELRT_PARAMS(LstmParams, LSTM_PARAMS)

enum Direction : int { kForward, kReverse, kBidirectional, kDirections };

constexpr int64_t kMostHidden = 1 << 20;

static inline int gates_of(int cell) {
    return cell == kLstm ? 4 : cell == kGru ? 3 : 1;
}
static inline int64_t blocks_of(int64_t hidden) {
    return (hidden + kBlock - 1) / kBlock;
}
// The recurrent weights of one direction when packed: gates x hidden, the units in whole blocks.
static inline int64_t packed_numbers(int cell, int64_t hidden) {
    return blocks_of(hidden) * kBlock * gates_of(cell) * hidden;
}

struct Layer {
    const Step &step;
    const LstmParams p;
    const Tensor &gates, &lengths, &y;
    int64_t T, N, D, H, blocks, groups, columns; // groups of rows; columns: of the gates of one direction
    int G;

    explicit Layer(const Step &s)
        : step(s), p(s.as<LstmParams>()), gates(s.in[0]), lengths(s.input(4)), y(s.out[0]), T(s.in[0].dims[0]),
          N(s.in[0].dims[1]), D(p.direction == kBidirectional ? 2 : 1), H(p.hidden), blocks(blocks_of(p.hidden)),
          groups((s.in[0].dims[1] + kStateRows - 1) / kStateRows), columns(blocks * kBlock * gates_of(p.cell)),
          G(gates_of(p.cell)) {}

    bool reversed(int64_t d) const { return p.direction == kReverse || d == 1; }
    int64_t length(int64_t n) const {
        return lengths.present() ? lengths.as<const int32_t>()[n * lengths.strides[0]] : T;
    }
    int phases() const { return p.cell == kGru && !p.reset_behind ? 2 : 1; }
    int64_t state_numbers() const { return blocks * kStateRows * kBlock; }
    static constexpr int kStates = 5; // two of h, c, z, r · h
    uint64_t chain_bytes() const { return static_cast<uint64_t>(state_numbers()) * kStates * sizeof(float); }
    static constexpr int64_t sums_numbers() { return kStateRows * 4 * kBlock; }
};

// One direction and up to kStateRows rows.
struct Chain {
    const Layer &layer;
    int64_t d, first;
    int rows;
    float *h[2], *c, *z, *reset;

    Chain(const Layer &l, int64_t index, char *scratch)
        : layer(l), d(index / l.groups), first(index % l.groups * kStateRows),
          rows(static_cast<int>(l.N - first < kStateRows ? l.N - first : kStateRows)) {
        float *own = reinterpret_cast<float *>(scratch + static_cast<uint64_t>(index) * l.chain_bytes());
        for (float **part : {&h[0], &h[1], &c, &z, &reset}) {
            *part = own;
            own += l.state_numbers();
        }
    }

    // A state as it lies in the operands: (D, N, H), rows of H without gaps.
    template <class T> T *place(const Tensor &t, int64_t row) const {
        return t.as<T>() + d * t.strides[0] + (first + row) * t.strides[1];
    }
    float *at(float *state, int64_t block, int64_t row) const { return state + (block * kStateRows + row) * kBlock; }

    void read(const Tensor &t, float *state) const {
        std::memset(state, 0, static_cast<size_t>(layer.state_numbers()) * sizeof(float));
        for (int row = 0; t.present() && row < rows; ++row)
            for (int64_t j = 0; j < layer.H; ++j)
                at(state, j / kBlock, row)[j % kBlock] = place<const float>(t, row)[j];
    }
    void write(const Tensor &t, float *state) const {
        for (int row = 0; t.present() && row < rows; ++row)
            for (int64_t j = 0; j < layer.H; ++j)
                place<float>(t, row)[j] = at(state, j / kBlock, row)[j % kBlock];
    }
    void begin() const {
        read(layer.step.input(5), h[0]);
        read(layer.step.input(6), c);
    }
    void finish() const {
        for (int row = 0; layer.y.present() && row < rows; ++row)
            for (int64_t t = layer.length(first + row); t < layer.T; ++t)
                std::memset(output(t, row), 0, static_cast<size_t>(layer.H) * sizeof(float));
        if (layer.step.outputs > 1)
            write(layer.step.out[1], h[layer.T & 1]);
        if (layer.step.outputs > 2)
            write(layer.step.out[2], c);
    }
    float *output(int64_t t, int64_t row) const {
        const Tensor &y = layer.y;
        return y.as<float>() + t * y.strides[0] + d * y.strides[1] + (first + row) * y.strides[2];
    }
    // The time that a row is at in step s; -1 past its end.
    int64_t time(int64_t s, int64_t row) const {
        const int64_t length = layer.length(first + row);
        return s >= length ? -1 : layer.reversed(d) ? length - 1 - s : s;
    }
};

} // namespace voxelrt::VOXELRT_ISA
