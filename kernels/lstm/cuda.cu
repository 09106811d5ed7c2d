// lstm: LSTM, GRU with the reset gate on either side of its product, and plain RNN; a launch a step, both directions at
// once. A GRU whose reset comes before the product takes two: its gates, then its candidate.
#include "cuda.cuh"

#include "gates.cuh"

namespace {

using voxelrt::gate_sum;
using voxelrt::kSequences;
using voxelrt::kUnits;

enum Cell : int { kLstm, kGru, kRnn };                                                  // codes.py
enum Phase : int { kWhole, kGates, kCandidate };                                        // of a step; cuda.py
enum Flag : int { kBackwards = 1, kPeepholes = 2, kInputForget = 4, kResetBehind = 8 }; // cuda.py

struct Function {
    int code; // codes.py
    float a, b;

    __device__ float operator()(float x) const {
        switch (code) {
        case 0:
            return voxelrt::sigmoid(x);
        case 1:
            return tanhf(x);
        case 2:
            return x < 0.0f ? 0.0f : x;
        case 3:
            return a * x + b;
        case 4:
            return x < 0.0f ? a * x : x;
        case 5:
            return x <= a ? 0.0f : x;
        case 6:
            return a * tanhf(b * x);
        case 7: {
            const float y = a * x + b;
            return y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;
        }
        case 8:
            return x < 0.0f ? a * expm1f(x) : x;
        case 9:
            return x / (1.0f + fabsf(x));
        default:
            return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x)));
        }
    }
};

struct Step {
    float *y, *states, *cells;
    const float *before;
    float *update, *candidate; // a GRU's z, and r times the state
    const float *inputs, *weights, *bias, *peepholes;
    const int *lengths;
    const int *codes; // of f, g and h of each direction, with their numbers
    const float *numbers;
    long long step, batch, hidden;
    int cell, phase, gates, first, flags;
    float clip;

    __device__ Function function(int which) const {
        const int at = (int)blockIdx.z * 3 + which;
        return {codes[at], numbers[2 * at], numbers[2 * at + 1]};
    }
    __device__ float bound(float x) const { // a NaN stays
        x = x < -clip ? -clip : x;
        return x > clip ? clip : x;
    }
};

// One unit of one sequence: `input` are its gates from the input, `hidden` apart; gives the new state.
__device__ float lstm_cell(const Step &s, const voxelrt::Shared &shared, int n, int unit, const float *input,
                           long long at, long long own) {
    const Function f = s.function(0), g = s.function(1), h = s.function(2);
    const float old = s.cells[at];
    float sums[4];
    for (int gate = 0; gate < 4; ++gate)
        sums[gate] = input[gate * s.hidden] + gate_sum(shared, n, gate * kUnits + unit);
    const float *const peep = s.peepholes + blockIdx.z * 3 * s.hidden + own;
    if (s.flags & kPeepholes) {
        sums[0] += peep[0] * old;
        sums[2] += peep[2 * s.hidden] * old;
    }
    const float i = f(s.bound(sums[0])), forget = s.flags & kInputForget ? 1.0f - i : f(s.bound(sums[2]));
    const float now = forget * old + i * g(s.bound(sums[3]));
    if (s.flags & kPeepholes)
        sums[1] += peep[s.hidden] * now;
    s.cells[at] = now;
    return f(s.bound(sums[1])) * h(now);
}

__device__ float gru_cell(const Step &s, const voxelrt::Shared &shared, int n, int unit, const float *input,
                          long long at, long long own) {
    const Function f = s.function(0), g = s.function(1);
    const float old = s.before[at];
    if (s.phase == kCandidate) {
        const float z = s.update[at];
        return (1.0f - z) * g(s.bound(input[2 * s.hidden] + gate_sum(shared, n, unit))) + z * old;
    }
    const float z = f(s.bound(input[0] + gate_sum(shared, n, unit)));
    const float reset = f(s.bound(input[s.hidden] + gate_sum(shared, n, kUnits + unit)));
    if (s.phase == kGates) {
        s.update[at] = z;
        s.candidate[at] = reset * old;
        return old;
    }
    const float beside = s.bias[(blockIdx.z * 6 + 5) * s.hidden + own]; // of the state's product of the candidate
    const float behind = reset * (gate_sum(shared, n, 2 * kUnits + unit) + beside);
    return (1.0f - z) * g(s.bound(input[2 * s.hidden] + behind)) + z * old;
}

__device__ void run_step(const Step &s) {
    __shared__ voxelrt::Shared shared;
    const int thread = (int)(threadIdx.y * blockDim.x + threadIdx.x), threads = (int)(blockDim.x * blockDim.y);
    const long long first = (long long)blockIdx.x * kSequences, directions = gridDim.z;
    const bool back = blockIdx.z == 1 || (s.flags & kBackwards);
    if (thread < kSequences) {
        const long long n = first + thread;
        const bool runs = n < s.batch && s.step < s.lengths[n];
        const float *const states = s.phase == kCandidate ? s.candidate : s.before;
        shared.from[thread] = runs ? states + (blockIdx.z * s.batch + n) * s.hidden : nullptr;
    }
    const long long row = (long long)s.gates * kUnits;
    const float *weights = s.weights + (blockIdx.z * gridDim.y + blockIdx.y) * s.hidden * row + s.first * kUnits;
    voxelrt::state_products(shared, 1, s.hidden, weights, row);
    for (int i = thread; i < kSequences * kUnits; i += threads) {
        const int n = i / kUnits, unit = i % kUnits;
        const long long own = (long long)blockIdx.y * kUnits + unit, sequence = first + n;
        if (own >= s.hidden || sequence >= s.batch)
            continue;
        const long long at = (blockIdx.z * s.batch + sequence) * s.hidden + own, length = s.lengths[sequence];
        const bool runs = s.step < length;
        const long long time = runs && back ? length - 1 - s.step : s.step;
        const long long line = (time * s.batch + sequence) * directions + blockIdx.z;
        const float *const input = s.inputs + line * s.gates * s.hidden + own;
        float made = s.before[at];
        if (runs && s.cell == kLstm)
            made = lstm_cell(s, shared, n, unit, input, at, own);
        else if (runs && s.cell == kGru)
            made = gru_cell(s, shared, n, unit, input, at, own);
        else if (runs)
            made = s.function(0)(s.bound(input[0] + gate_sum(shared, n, unit)));
        if (s.phase == kGates)
            continue;
        s.states[at] = made;
        s.y[((time * directions + blockIdx.z) * s.batch + sequence) * s.hidden + own] = runs ? made : 0.0f;
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(256)
    voxelrt_lstm_start(float *states, float *cells, const float *h, const float *c, long long count) {
    for (long long i = voxelrt::global_thread(); i < count; i += voxelrt::global_threads()) {
        states[i] = h[i];
        cells[i] = c[i];
    }
}

// (steps · batch, directions · gates · hidden); the biases beside the input and, but for a candidate whose reset comes
// after its product, those beside the state.
extern "C" __global__ void __launch_bounds__(256)
    voxelrt_lstm_inputs(float *out, const float *x, const float *w, const float *bias, long long rows,
                        long long columns, long long depth, long long of_direction, long long both) {
    voxelrt::input_products(out, x, w, rows, columns, depth, [=](long long column) {
        const long long direction = column / of_direction, own = column % of_direction;
        const float *const beside = bias + direction * 2 * of_direction + own;
        return beside[0] + (own < both ? beside[of_direction] : 0.0f);
    });
}

extern "C" __global__ void __launch_bounds__(256)
    voxelrt_lstm_step(float *y, float *states, float *cells, const float *before, float *update, float *candidate,
                      const float *inputs, const float *weights, const float *bias, const float *peepholes,
                      const int *lengths, const int *codes, const float *numbers, long long step, long long batch,
                      long long hidden, int cell, int phase, int gates, int first, int flags, float clip) {
    run_step({y,     states,  cells, before, update, candidate, inputs, weights, bias,  peepholes, lengths,
              codes, numbers, step,  batch,  hidden, cell,      phase,  gates,   first, flags,     clip});
}
