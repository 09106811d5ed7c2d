// mdlstm: the recurrent part of multi-dimensional LSTM layers; the input's part of the gates is a product made before.
//
// Cells whose coordinates, counted in a direction's own way, have the same sum depend on earlier sums only. Such a
// front, of every direction and row of the batch, is worked on at once, up to kStateRows cells to a tile.
#include "approx.h"
#include "lstm/tile.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {
namespace {

#define MDLSTM_PARAMS(S, A) S(i32, axes) S(i32, hidden)
VOXELRT_PARAMS(MdlstmParams, MDLSTM_PARAMS)

constexpr int kMostAxes = 3, kMostGates = kMostAxes + 3;
constexpr int64_t kMostHidden = 1 << 16;

int64_t blocks_of(int64_t hidden) {
    return (hidden + kBlock - 1) / kBlock;
}
int64_t packed_numbers(const MdlstmParams &p) {
    return blocks_of(p.hidden) * kBlock * (p.axes + 3) * p.hidden * p.axes;
}

struct Grid {
    const Step &step;
    const int axes;
    const int64_t H, blocks, directions, N, packed;
    int64_t dims[kMostAxes], steps[kMostAxes], cells = 1, fronts = 1;

    explicit Grid(const Step &s)
        : step(s), axes(s.as<MdlstmParams>().axes), H(s.as<MdlstmParams>().hidden), blocks(blocks_of(H)),
          directions(int64_t(1) << axes), N(s.in[0].dims[axes]), packed(packed_numbers(s.as<MdlstmParams>())) {
        for (int a = axes - 1; a >= 0; --a) {
            dims[a] = s.in[0].dims[a];
            steps[a] = cells;
            cells *= dims[a];
            fronts += dims[a] - 1;
        }
    }
    int64_t padded() const { return blocks * kBlock; }
    int64_t cell_numbers() const { return directions * cells * N * padded(); }
    int64_t state_numbers() const { return (H * axes + kBlock - 1) / kBlock * kBlock * kStateRows; }
    int64_t worker_numbers() const { return state_numbers() + kStateRows * kMostGates * kBlock; }
    uint64_t bytes(uint32_t threads) const {
        const uint64_t floats = static_cast<uint64_t>(cell_numbers() + worker_numbers() * threads);
        return floats * sizeof(float) + static_cast<uint64_t>(cells + fronts + 1) * sizeof(int64_t);
    }
    int64_t coordinate(int64_t cell, int a) const { // in 32 bits, which divide faster; there are under 2^31 cells
        return static_cast<uint32_t>(cell) / static_cast<uint32_t>(steps[a]) % static_cast<uint32_t>(dims[a]);
    }
    int64_t front(int64_t cell) const {
        int64_t sum = 0;
        for (int a = 0; a < axes; ++a)
            sum += coordinate(cell, a);
        return sum;
    }
    // The place in the operands of a cell of these coordinates, counted in a direction's own way.
    int64_t place(const int64_t *at, int64_t direction, const int64_t *strides) const {
        int64_t offset = 0;
        for (int a = 0; a < axes; ++a)
            offset += (direction >> a & 1 ? dims[a] - 1 - at[a] : at[a]) * strides[a];
        return offset;
    }
};

struct Run {
    const Grid &grid;
    float *inner; // c: [direction][cell in the direction's own order][n][padded]
    const int64_t *order;

    float *cell_state(int64_t direction, int64_t cell, int64_t n) const {
        return inner + ((direction * grid.cells + cell) * grid.N + n) * grid.padded();
    }

    template <int A> void cell(const float *x, const float *s, const float *const before[A], float *c, float *h) const {
        constexpr int last = (A + 2) * kBlock;
        alignas(64) float now[kBlock]; // one loop for each step: as a single one the compiler keeps it scalar
        VOXELRT_INDEPENDENT
        for (int l = 0; l < kBlock; ++l)
            now[l] = gated_tanh_f32(x[l] + s[l], x[last + l] + s[last + l]);
        for (int a = 0; a < A; ++a) {
            const float *forget_x = x + (2 + a) * kBlock, *forget_s = s + (2 + a) * kBlock, *old = before[a];
            VOXELRT_INDEPENDENT
            for (int l = 0; l < kBlock; ++l)
                now[l] += old[l] / gate_divisor_f32(forget_x[l] + forget_s[l]);
        }
        VOXELRT_INDEPENDENT
        for (int l = 0; l < kBlock; ++l) {
            c[l] = now[l];
            h[l] = gated_tanh_f32(x[kBlock + l] + s[kBlock + l], now[l]);
        }
    }

    // What a tile's row reads and writes, found once for all blocks of its units.
    template <int A> struct Row {
        const float *gates, *h[A], *c_before[A]; // null at the border of the grid
        float *c, *y;
    };

    template <int A> Row<A> row_of(int64_t direction, int64_t cell, int64_t n) const {
        const Tensor &gates = grid.step.in[0], &y = grid.step.out[0];
        int64_t at[A];
        for (int a = 0; a < A; ++a)
            at[a] = grid.coordinate(cell, a);
        Row<A> row;
        row.gates = gates.as<const float>() + grid.place(at, direction, gates.strides) + n * gates.strides[A] +
                    direction * grid.blocks * (A + 3) * kBlock;
        row.c = cell_state(direction, cell, n);
        row.y = y.as<float>() + grid.place(at, direction, y.strides) + direction * y.strides[A] + n * y.strides[A + 1];
        for (int a = 0; a < A; ++a) {
            const int64_t back = direction >> a & 1 ? y.strides[a] : -y.strides[a];
            row.h[a] = at[a] > 0 ? row.y + back : nullptr;
            row.c_before[a] = at[a] > 0 ? cell_state(direction, cell - grid.steps[a], n) : nullptr;
        }
        return row;
    }

    // The states of one predecessor of row r of a tile, beside the others; zeros for none.
    void gather(const float *h, int64_t a, int r, float *states) const {
        for (int64_t k = a * grid.H, end = k + grid.H; k < end;) {
            const int64_t lane = k % kBlock, count = end - k < kBlock - lane ? end - k : kBlock - lane;
            float *to = states + (k / kBlock * kStateRows + r) * kBlock + lane;
            if (!h)
                std::memset(to, 0, static_cast<size_t>(count) * sizeof(float));
            else if (count == kBlock)
                store(to, load(h + (k - a * grid.H)));
            else
                std::memcpy(to, h + (k - a * grid.H), static_cast<size_t>(count) * sizeof(float));
            k += count;
        }
    }

    // Rows [first, first + rows) of a front that begins at `begin` in the order; a row is a cell and one of the batch.
    template <int A> void rows(int64_t direction, int64_t begin, int64_t first, int rows, float *states) const {
        static const float zeros[kBlock] = {};
        const Grid &g = grid;
        constexpr int G = A + 3;
        float *sums = states + g.state_numbers();
        Row<A> tile[kStateRows];
        for (int r = 0; r < rows; ++r) {
            tile[r] = row_of<A>(direction, order[begin + (first + r) / g.N], (first + r) % g.N);
            for (int a = 0; a < A; ++a)
                gather(tile[r].h[a], a, r, states);
        }
        for (int64_t block = 0; block < g.blocks; ++block) {
            const float *panel = g.step.in[1].as<const float>() + direction * g.packed + block * kBlock * G * g.H * A;
            multiply_states<G>(rows, g.H * A, states, kStateRows * kBlock, panel, sums);
            const int64_t unit = block * kBlock, left = g.H - unit;
            for (int r = 0; r < rows; ++r) {
                const Row<A> &row = tile[r];
                const float *before[A];
                for (int a = 0; a < A; ++a)
                    before[a] = row.c_before[a] ? row.c_before[a] + unit : zeros;
                alignas(64) float h[kBlock];
                cell<A>(row.gates + unit * G, sums + r * G * kBlock, before, row.c + unit, h);
                if (left >= kBlock)
                    store(row.y + unit, load(h));
                else
                    std::memcpy(row.y + unit, h, static_cast<size_t>(left) * sizeof(float));
            }
        }
    }

    // Directions are independent: where they go evenly into the threads none waits for another. Else all threads share
    // each front and meet behind it.
    template <int A> void run(const Env &env, const int64_t *starts, float *scratch) const {
        const auto tile = [&](int64_t direction, int64_t front, int64_t group, uint32_t worker) {
            const int64_t count = (starts[front + 1] - starts[front]) * grid.N, first = group * kStateRows;
            const int many = static_cast<int>(count - first < kStateRows ? count - first : kStateRows);
            rows<A>(direction, starts[front], first, many, scratch + worker * grid.worker_numbers());
        };
        const auto groups_of = [&](int64_t front) {
            return ((starts[front + 1] - starts[front]) * grid.N + kStateRows - 1) / kStateRows;
        };
        if (grid.directions % env.threads == 0)
            return env.parallel(grid.directions, [&](int64_t direction, uint32_t worker) {
                for (int64_t front = 0; front < grid.fronts; ++front)
                    for (int64_t group = 0; group < groups_of(front); ++group)
                        tile(direction, front, group, worker);
            });
        for (int64_t front = 0; front < grid.fronts; ++front) {
            const int64_t groups = groups_of(front);
            env.parallel(grid.directions * groups,
                         [&](int64_t task, uint32_t worker) { tile(task / groups, front, task % groups, worker); });
        }
    }
};

// ---- the kernel ----

Message check(const Step &step) {
    const MdlstmParams p = step.as<MdlstmParams>();
    if (step.inputs != 2 || step.outputs != 1 || !step.out[0].present())
        return "takes the input's part of the gates and packed weights, and gives one result";
    if (p.axes < 1 || p.axes > kMostAxes || p.hidden < 1 || p.hidden > kMostHidden)
        return fail("%d axes and %d hidden units; 1 to 3 axes and up to 65536 units are supported", p.axes, p.hidden);
    const Tensor &gates = step.in[0], &weights = step.in[1], &y = step.out[0];
    const int A = p.axes;
    const int64_t directions = int64_t(1) << A, columns = directions * (A + 3) * blocks_of(p.hidden) * kBlock;
    if (gates.dtype != VOXELRT_F32 || gates.layout != VOXELRT_LINEAR || gates.pending() || gates.rank != A + 2 ||
        gates.dims[A + 1] != columns || gates.strides[A + 1] != 1)
        return "the input's part of the gates is (grid, N, directions · gates · units in whole blocks) float32";
    int64_t cells = 1;
    for (int a = 0; a <= A; ++a) {
        if (gates.dims[a] >= (int64_t(1) << 31) || (cells *= gates.dims[a]) >= (int64_t(1) << 31))
            return "more than 2^31 cells";
    }
    if (weights.dtype != VOXELRT_F32 || weights.pending() || weights.rank != 1 || !weights.contiguous() ||
        weights.dims[0] != directions * packed_numbers(p))
        return "the packed weights are a flat float32 vector";
    bool fits = y.dtype == VOXELRT_F32 && y.layout == VOXELRT_LINEAR && y.rank == A + 3 && y.dims[A] == directions &&
                y.dims[A + 1] == gates.dims[A] && y.dims[A + 2] == p.hidden && (p.hidden == 1 || y.strides[A + 2] == 1);
    for (int a = 0; a < A; ++a)
        fits = fits && y.dims[a] == gates.dims[a];
    return fits ? nullptr : "the result is (grid, directions, N, hidden) float32, its rows without gaps";
}

uint64_t scratch(const Step &step, uint32_t threads) {
    return step.out[0].count() == 0 ? 0 : Grid(step).bytes(threads);
}

Message run(const Step &step, const Env &env) {
    if (step.out[0].count() == 0)
        return nullptr;
    const Grid grid(step);
    int64_t *starts = reinterpret_cast<int64_t *>(env.scratch), *order = starts + grid.fronts + 1;
    std::memset(starts, 0, static_cast<size_t>(grid.fronts + 1) * sizeof(int64_t));
    for (int64_t cell = 0; cell < grid.cells; ++cell)
        ++starts[grid.front(cell) + 1];
    for (int64_t front = 0; front < grid.fronts; ++front)
        starts[front + 1] += starts[front];
    for (int64_t cell = 0; cell < grid.cells; ++cell)
        order[starts[grid.front(cell)]++] = cell;
    for (int64_t front = grid.fronts; front > 0; --front)
        starts[front] = starts[front - 1];
    starts[0] = 0;
    float *inner = reinterpret_cast<float *>(order + grid.cells), *rest = inner + grid.cell_numbers();
    const Run work{grid, inner, order};
    if (grid.axes == 1)
        work.run<1>(env, starts, rest);
    else if (grid.axes == 2)
        work.run<2>(env, starts, rest);
    else
        work.run<3>(env, starts, rest);
    return nullptr;
}

// R (directions, gates · hidden, axes · hidden) to panels [direction][block][k][gate][16].
uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const MdlstmParams p = *static_cast<const MdlstmParams *>(params);
    if (p.axes < 1 || p.axes > kMostAxes || p.hidden < 1 || p.hidden > kMostHidden || raw.dtype != VOXELRT_F32 ||
        raw.rank != 3 || raw.dims[0] != int64_t(1) << p.axes || raw.dims[1] != (p.axes + 3) * int64_t(p.hidden) ||
        raw.dims[2] != p.axes * int64_t(p.hidden))
        return 0;
    return static_cast<uint64_t>(raw.dims[0] * packed_numbers(p)) * sizeof(float);
}

void pack(const void *params, const Tensor &raw, char *packed) {
    const MdlstmParams p = *static_cast<const MdlstmParams *>(params);
    const int64_t H = p.hidden;
    float *to = reinterpret_cast<float *>(packed);
    for (int64_t d = 0; d < raw.dims[0]; ++d)
        for (int64_t block = 0; block < blocks_of(H); ++block)
            for (int64_t k = 0; k < raw.dims[2]; ++k)
                for (int64_t g = 0; g < p.axes + 3; ++g)
                    for (int64_t j = block * kBlock; j < (block + 1) * kBlock; ++j)
                        *to++ = j < H ? raw.as<const float>()[d * raw.strides[0] + (g * H + j) * raw.strides[1] +
                                                              k * raw.strides[2]]
                                      : 0.0f;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(mdlstm, {{"mdlstm", 1, MdlstmParamsText, sizeof(MdlstmParams), check, run, scratch, pack_bytes, pack}})
