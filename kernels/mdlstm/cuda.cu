// mdlstm: a launch a front of the grid (the cells that have come equally far), all directions at once.
#include "cuda.cuh"

#include "gates.cuh"

namespace {

using voxelrt::gate_sum;
using voxelrt::kSequences;
using voxelrt::kUnits;

struct Grid {
    long long size[3], batch, hidden;
    int axes;
};

// The cells of a front are looked for among those of the first two axes; each has its batch.
struct Place {
    long long at[3], item; // how far the direction has come along each axis
    bool there;
};

__device__ Place place_of(const Grid &g, long long number, long long lane) {
    const long long line = lane / g.batch;
    Place made = {{line / g.size[1], line % g.size[1], 0}, lane % g.batch, false};
    made.at[2] = number - made.at[0] - made.at[1];
    made.there = made.at[0] < g.size[0] && made.at[2] >= 0 && made.at[2] < g.size[2];
    return made;
}

// Where the states of a cell begin, of this block's direction; backwards along the axes whose bit is set.
__device__ long long states_of(const Grid &g, const Place &p, int before) {
    long long cell = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const int bit = axis - (3 - g.axes);
        const long long at = p.at[axis] - (axis == before ? 1 : 0);
        const bool back = bit >= 0 && (blockIdx.z >> bit & 1u);
        cell = cell * g.size[axis] + (back ? g.size[axis] - 1 - at : at);
    }
    return ((cell * gridDim.z + blockIdx.z) * g.batch + p.item) * g.hidden;
}

__device__ void run_front(const Grid &g, float *y, float *cells, const float *inputs, const float *weights,
                          long long number) {
    __shared__ voxelrt::Shared shared;
    const int thread = (int)(threadIdx.y * blockDim.x + threadIdx.x), threads = (int)(blockDim.x * blockDim.y);
    const int gates = g.axes + 3, hidden_axes = 3 - g.axes;
    const long long first = (long long)blockIdx.x * kSequences, columns = (long long)gates * kUnits;
    if (thread < g.axes * kSequences) {
        const int axis = hidden_axes + thread / kSequences;
        const Place p = place_of(g, number, first + thread % kSequences);
        shared.from[thread] = p.there && p.at[axis] > 0 ? y + states_of(g, p, axis) : nullptr;
    }
    const long long block = blockIdx.z * gridDim.y + blockIdx.y;
    voxelrt::state_products(shared, g.axes, g.hidden, weights + block * g.axes * g.hidden * columns, columns);
    for (int i = thread; i < kSequences * kUnits; i += threads) {
        const int n = i / kUnits, unit = i % kUnits;
        const long long own = (long long)blockIdx.y * kUnits + unit;
        const Place p = place_of(g, number, first + n);
        if (!p.there || own >= g.hidden)
            continue;
        const long long at = states_of(g, p, -1), line = at / g.hidden; // (cell, direction, item)
        const long long cell = line / g.batch / gridDim.z;
        const float *const input =
            inputs + ((cell * g.batch + p.item) * gridDim.z + blockIdx.z) * gates * g.hidden + own;
        const auto gate = [&](int k) { return input[k * g.hidden] + gate_sum(shared, n, k * kUnits + unit); };
        float made = voxelrt::sigmoid(gate(0)) * tanhf(gate(gates - 1));
        for (int part = 0; part < g.axes; ++part)
            if (p.at[hidden_axes + part] > 0)
                made += voxelrt::sigmoid(gate(2 + part)) * cells[states_of(g, p, hidden_axes + part) + own];
        cells[at + own] = made;
        y[at + own] = voxelrt::sigmoid(gate(1)) * tanhf(made);
    }
}

} // namespace

// (cells · batch, directions · gates · hidden)
extern "C" __global__ void __launch_bounds__(256)
    voxelrt_mdlstm_inputs(float *out, const float *x, const float *w, const float *bias, long long rows,
                          long long columns, long long depth) {
    voxelrt::input_products(out, x, w, rows, columns, depth, [=](long long column) { return bias[column]; });
}

extern "C" __global__ void __launch_bounds__(256)
    voxelrt_mdlstm_front(float *y, float *cells, const float *inputs, const float *weights, long long number,
                         long long depth, long long rows, long long columns, long long batch, long long hidden,
                         int axes) {
    run_front({{depth, rows, columns}, batch, hidden, axes}, y, cells, inputs, weights, number);
}
