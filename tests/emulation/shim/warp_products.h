// What a warp's tensor cores do, for the shim: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".
// tests/emulation/test_warp_products.py puts both beside NumPy's products.
#pragma once
#include "cuda_shim.h"

namespace voxelrt_shim {

struct Operands {
    unsigned a[4], b[2];
};

template <typename T> double element(const unsigned *registers, unsigned index) {
    T value;
    std::memcpy(&value, (const unsigned char *)registers + index * sizeof(T), sizeof value);
    return (double)(float)value;
}
// A tensor core does not look at the bits that TF32 does not have.
template <> inline double element<float>(const unsigned *registers, unsigned index) {
    return (double)__int_as_float((int)(registers[index] & 0xffffe000u));
}

// c += a b, 16 rows, 8 columns, and a depth of eight registers' worth of T.
template <typename T> void multiply(float *c, const unsigned *a, const unsigned *b) {
    constexpr unsigned each = 4 / sizeof(T), half = 4 * each;
    const unsigned lane = current->lane;
    Operands mine;
    std::memcpy(mine.a, a, sizeof mine.a);
    std::memcpy(mine.b, b, sizeof mine.b);
    std::memcpy(lane_slot(lane), &mine, sizeof mine);
    warp_barrier(0xffffffffu);
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        double sum = c[i];
        for (unsigned k = 0; k < 2 * half; ++k) {
            const unsigned along = k % half / each;
            Operands left, right;
            std::memcpy(&left, lane_slot(row % 8 * 4 + along), sizeof left);
            std::memcpy(&right, lane_slot(column * 4 + along), sizeof right);
            sum += element<T>(left.a + row / 8 + 2 * (k / half), k % each) * element<T>(right.b + k / half, k % each);
        }
        c[i] = (float)sum;
    }
    warp_barrier(0xffffffffu);
}

inline void load_matrices(unsigned *to, const void *row, bool turned) {
    const unsigned lane = current->lane;
    std::memcpy(lane_slot(lane), &row, sizeof row);
    warp_barrier(0xffffffffu);
    for (unsigned m = 0; m < 4; ++m) {
        unsigned short pair[2];
        for (unsigned e = 0; e < 2; ++e) {
            const unsigned along = lane % 4 * 2 + e, across = lane / 4;
            const unsigned short *from;
            std::memcpy(&from, lane_slot(8 * m + (turned ? along : across)), sizeof from);
            pair[e] = from[turned ? across : along];
        }
        std::memcpy(to + m, pair, sizeof pair);
    }
    warp_barrier(0xffffffffu);
}

} // namespace voxelrt_shim
