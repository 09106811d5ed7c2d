// lstm: the recurrent part of LSTM, GRU and RNN layers; the input's part of the gates is a product made before.
//
// A chain (one direction, up to kStateRows rows) is independent of all others, so chains are tasks that run from the
// first step to the last. Only where there are fewer chains than threads are they cut, into parts of the hidden units
// that meet after each step. No number depends on the cut: each is one sum over k, whoever makes it.
#include "lstm/layer.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <type_traits>

namespace voxelrt::VOXELRT_ISA {
namespace {

constexpr int64_t kPair = 2;        // blocks of units that are worked on together
constexpr int64_t kMostTasks = 8;   // that a step of all chains is cut into
constexpr int64_t kLeastBlocks = 4; // of a part, so that it is worth a meeting of the threads
constexpr int64_t kAhead = 64;      // lines of a panel that are fetched during the cells before it
constexpr uint32_t kPatience = 100; // looks, before a thread takes what others have not begun
constexpr uint32_t kSpins = 4000;   // some microseconds, before a waiting thread lets others have its processor

// Between two looks at what another thread is about to finish.
void wait(uint32_t spins) {
    if (spins >= kSpins)
        std::this_thread::yield();
#if defined(__x86_64__)
    else
        __builtin_ia32_pause();
#endif
}

template <class F> struct Run {
    const Layer &layer;
    const F functions[2];
    const CellOptions options;

    const float *packed(int64_t d, int phase, int64_t block) const {
        const Layer &l = layer;
        const float *own = l.step.in[1].as<const float>() + d * packed_numbers(l.p.cell, l.H);
        const int64_t gates = l.phases() == 1 ? l.G : phase == 0 ? 2 : 1; // of a panel of this phase
        const int64_t before = phase == 0 ? 0 : l.blocks * kBlock * 2 * l.H;
        return own + before + block * kBlock * gates * l.H;
    }

    // Blocks [block, block + count) of the units of a chain in step s.
    template <int V>
    void units(const Chain &c, int64_t s, int phase, int64_t block, int count, int64_t next, float *sums) const {
        const Layer &l = layer;
        const float *states = phase == 0 ? c.h[s & 1] : c.reset;
        constexpr int64_t a_block = kStateRows * kBlock, width = V * kBlock;
        for (int row = 0; row < c.rows; ++row) // each row's gates lie on another page: none comes by itself
            if (const int64_t t = c.time(s, row); t >= 0)
                for (int i = 0; i < count; ++i)
                    fetch_ahead(inputs(c, t, row, block + i), l.G);
        if (c.rows == 1) {
            multiply_state<V>(count, l.H, states, a_block, packed(c.d, phase, block), sums);
            for (int i = 0; next >= 0 && i < count; ++i) // the cache would rest while the cells are worked on
                fetch_ahead(packed(c.d, phase, next + i), kAhead);
            for (int i = 0; i < count; ++i)
                finish(c, s, phase, block + i, 0, sums + i * width);
            return;
        }
        for (int i = 0; i < count; ++i) {
            multiply_states<V>(c.rows, l.H, states, a_block, packed(c.d, phase, block + i), sums);
            for (int row = 0; row < c.rows; ++row)
                finish(c, s, phase, block + i, row, sums + row * width);
        }
    }

    // The input's part of the gates of a row at time t.
    const float *inputs(const Chain &c, int64_t t, int64_t row, int64_t block) const {
        const Tensor &gates = layer.gates;
        return gates.as<const float>() + t * gates.strides[0] + (c.first + row) * gates.strides[1] +
               c.d * layer.columns + block * kBlock * layer.G;
    }
    static void fetch_ahead(const float *at, int64_t lines) {
        for (int64_t i = 0; i < lines; ++i)
            __builtin_prefetch(at + i * kBlock);
    }

    // What a cell of a row does with its sums; false where another phase follows.
    bool cell(const F &f, const Chain &c, int phase, int64_t block, int row, const float *x, const float *sums,
              const float *before, float *h) const {
        const Layer &l = layer;
        const int64_t padded = l.blocks * kBlock;
        if (l.p.cell == kLstm) {
            float *state = c.at(c.c, block, row);
            const float *peep = l.step.input(3).present()
                                    ? l.step.in[3].as<const float>() + c.d * 3 * padded + block * kBlock
                                    : nullptr;
            const auto run = peep ? (l.p.input_forget ? lstm_cell<true, true, F> : lstm_cell<true, false, F>)
                                  : (l.p.input_forget ? lstm_cell<false, true, F> : lstm_cell<false, false, F>);
            run(f, options, x, sums, peep, state, state, h);
        } else if (l.p.cell == kRnn) {
            rnn_cell(f, options, x, sums, h);
        } else if (l.phases() == 1) {
            gru_cell(f, options, x, sums, l.step.in[2].as<const float>() + c.d * padded + block * kBlock, before, h);
        } else if (phase == 0) {
            gru_gates(f, options, x, sums, before, c.at(c.z, block, row), c.at(c.reset, block, row));
            return false;
        } else {
            gru_state(f, options, x, sums, c.at(c.z, block, row), before, h);
        }
        return true;
    }

    void finish(const Chain &c, int64_t s, int phase, int64_t block, int row, const float *sums) const {
        const Layer &l = layer;
        const int64_t t = c.time(s, row);
        const float *before = c.at(c.h[s & 1], block, row);
        float *h = c.at(c.h[(s + 1) & 1], block, row);
        if (t < 0) { // past its end: the state stays
            std::memcpy(h, before, kBlock * sizeof(float));
            if (l.phases() == 2 && phase == 0)
                std::memset(c.at(c.reset, block, row), 0, kBlock * sizeof(float));
            return;
        }
        const float *x = inputs(c, t, row, block);
        const F &f = functions[c.d];
        if constexpr (std::is_same_v<F, UsualRnn>) {
            rnn_cell(f, options, x, sums, h);
        } else if (!cell(f, c, phase, block, row, x, sums, before, h)) {
            return;
        }
        if (l.y.present()) {
            const int64_t left = l.H - block * kBlock;
            std::memcpy(c.output(t, row) + block * kBlock, h,
                        static_cast<size_t>(left < kBlock ? left : kBlock) * sizeof(float));
        }
    }

    // A part of the pairs of blocks of one step and phase. Odd steps go backwards, so that weights a little larger than
    // the cache are not thrown out just before they are wanted again.
    void part(const Chain &c, int64_t s, int phase, int64_t part, int64_t parts, float *sums) const {
        const int64_t pairs = (layer.blocks + kPair - 1) / kPair;
        const int64_t begin = pairs * part / parts, end = pairs * (part + 1) / parts;
        if (c.rows == 1 && parts > 1) // what another thread has made comes all at once
            for (int64_t block = 0; block < layer.blocks; ++block)
                __builtin_prefetch(c.at(phase == 0 ? c.h[s & 1] : c.reset, block, 0));
        for (int64_t i = begin; i < end; ++i) {
            const int64_t block = (s & 1 ? begin + end - 1 - i : i) * kPair;
            const int count = static_cast<int>(layer.blocks - block < kPair ? layer.blocks - block : kPair);
            const int64_t after = s & 1 ? block - kPair : block + kPair;
            const int64_t next = i + 1 == end || after + kPair > layer.blocks ? -1 : after;
            switch (layer.phases() == 1 ? layer.G : phase == 0 ? 2 : 1) {
            case 4:
                units<4>(c, s, phase, block, count, next, sums);
                break;
            case 3:
                units<3>(c, s, phase, block, count, next, sums);
                break;
            case 2:
                units<2>(c, s, phase, block, count, next, sums);
                break;
            default:
                units<1>(c, s, phase, block, count, next, sums);
            }
        }
    }

    void whole(const Chain &c, float *sums) const {
        c.begin();
        for (int64_t s = 0; s < layer.T; ++s)
            for (int phase = 0; phase < layer.phases(); ++phase)
                part(c, s, phase, 0, 1, sums);
        c.finish();
    }

    // All chains step by step, each step cut into parts that any thread may take. A thread begins with the same parts
    // in every step, so that their weights stay in its cache, and waits only for parts that some thread is working on:
    // whoever calls us may give us one thread at a time. Others' parts are looked at only when they have not come for
    // a while: where a thread counts its rounds is a line of its own cache, which every look takes away.
    void shared(const Env &env, int64_t chains, int64_t parts, float *sums) const {
        for (int64_t i = 0; i < chains; ++i)
            Chain(layer, i, env.scratch).begin();
        struct alignas(64) Count {
            std::atomic<uint64_t> value{0};
        };
        Count begun[kMostTasks], done[kMostTasks]; // rounds of a task
        const uint64_t tasks = static_cast<uint64_t>(chains * parts), threads = env.threads;
        const uint64_t rounds = static_cast<uint64_t>(layer.T * layer.phases());
        const auto take = [&](uint64_t task, uint64_t round, uint32_t worker) {
            uint64_t expected = round;
            if (begun[task].value.load(std::memory_order_relaxed) != round ||
                !begun[task].value.compare_exchange_strong(expected, round + 1, std::memory_order_relaxed))
                return false;
            const int64_t chain = static_cast<int64_t>(task) % chains, own = static_cast<int64_t>(task) / chains;
            const int64_t s = static_cast<int64_t>(round) / layer.phases();
            part(Chain(layer, chain, env.scratch), s, static_cast<int>(round) % layer.phases(), own, parts,
                 sums + worker * Layer::sums_numbers());
            done[task].value.store(round + 1, std::memory_order_release);
            return true;
        };
        const auto met = [&](uint64_t round) {
            for (uint64_t task = 0; task < tasks; ++task)
                if (done[task].value.load(std::memory_order_acquire) <= round)
                    return false;
            return true;
        };
        env.parallel(static_cast<int64_t>(std::min(tasks, threads)), [&](int64_t, uint32_t worker) {
            const uint64_t first = worker * tasks / threads, end = (worker + 1) * tasks / threads;
            const uint32_t even = tasks % threads ? 0 : kPatience;
            uint32_t patience = even;
            for (uint64_t round = 0; round < rounds; ++round) {
                for (uint64_t task = first; task < end; ++task)
                    take(task, round, worker);
                for (uint32_t spins = 0; !met(round); ++spins) {
                    if (spins >= patience) {
                        bool taken = false;
                        for (uint64_t i = 0; i < tasks; ++i)
                            taken = take((first + i) % tasks, round, worker) || taken;
                        patience = taken ? 0 : even;
                    }
                    wait(spins);
                }
            }
        });
        for (int64_t i = 0; i < chains; ++i)
            Chain(layer, i, env.scratch).finish();
    }

    int64_t parts_of(int64_t chains, int64_t threads) const {
        if (chains < 1 || chains >= threads)
            return 1;
        const int64_t wanted = (threads + chains - 1) / chains, parts = layer.blocks / kLeastBlocks;
        return std::min(std::min(wanted, parts), kMostTasks / chains);
    }

    void run(const Env &env) const {
        const int64_t chains = layer.D * layer.groups, parts = parts_of(chains, env.threads);
        float *sums = reinterpret_cast<float *>(env.scratch + static_cast<uint64_t>(chains) * layer.chain_bytes());
        if (chains == 0)
            return;
        if (parts > 1)
            return shared(env, chains, parts, sums);
        env.parallel(chains, [&](int64_t chain, uint32_t worker) {
            whole(Chain(layer, chain, env.scratch), sums + worker * Layer::sums_numbers());
        });
    }
};

// ---- the kernel ----

bool is_vector(const Tensor &t, int64_t count) {
    return t.present() && t.dtype == VOXELRT_F32 && t.rank == 1 && t.dims[0] == count && t.contiguous();
}

bool is_state(const Tensor &t, int64_t D, int64_t N, int64_t H) {
    return t.dtype == VOXELRT_F32 && t.layout == VOXELRT_LINEAR && !t.pending() && t.rank == 3 && t.dims[0] == D &&
           t.dims[1] == N && t.dims[2] == H && (H == 1 || t.strides[2] == 1);
}

Message check_params(const LstmParams &p) {
    if (p.cell < 0 || p.cell >= kCells || p.direction < 0 || p.direction >= kDirections)
        return fail("there is no cell %d or no direction %d", p.cell, p.direction);
    if (p.hidden < 1 || p.hidden > kMostHidden)
        return fail("%d hidden units; 1 to %lld are supported", p.hidden, static_cast<long long>(kMostHidden));
    for (const int function : p.functions)
        if (function < 0 || function >= kFunctions)
            return fail("there is no activation %d", function);
    if (!(p.clip > 0.0f))
        return "the clip is positive, infinity for none";
    return nullptr;
}

Message check_operands(const Step &step) {
    const LstmParams p = step.as<LstmParams>();
    const Tensor &gates = step.in[0];
    const int64_t D = p.direction == kBidirectional ? 2 : 1, H = p.hidden, padded = blocks_of(H) * kBlock;
    if (gates.dtype != VOXELRT_F32 || gates.layout != VOXELRT_LINEAR || gates.pending() || gates.rank != 3 ||
        gates.dims[2] != D * padded * gates_of(p.cell) || gates.strides[2] != 1)
        return "the input's part of the gates is (T, N, directions · gates · units in whole blocks) float32, its rows "
               "without gaps";
    if (gates.dims[0] >= (int64_t(1) << 31) || gates.dims[1] >= (int64_t(1) << 31))
        return "an axis is longer than 2^31";
    if (!is_vector(step.in[1], D * packed_numbers(p.cell, H)))
        return "the packed weights are a flat float32 vector";
    if ((p.cell == kGru && p.reset_behind) != step.input(2).present() ||
        (step.input(2).present() && !is_vector(step.input(2), D * padded)))
        return "a bias of the state's product is for a GRU with its reset gate behind it: one for each unit";
    if (step.input(3).present() && (p.cell != kLstm || !is_vector(step.input(3), D * 3 * padded)))
        return "peepholes are for LSTM cells: three for each unit";
    const Tensor &lengths = step.input(4);
    if (lengths.present() &&
        (lengths.dtype != VOXELRT_I32 || lengths.rank != 1 || lengths.dims[0] != gates.dims[1] || lengths.pending()))
        return "lengths are one int32 for each row of the batch";
    const int64_t N = gates.dims[1];
    for (int i = 5; i < 7; ++i)
        if (step.input(i).present() && (!is_state(step.input(i), D, N, H) || (i == 6 && p.cell != kLstm)))
            return "a state is (directions, N, hidden) float32, its rows without gaps; only LSTM cells have a second";
    const Tensor &y = step.out[0];
    if (y.present() &&
        (y.dtype != VOXELRT_F32 || y.layout != VOXELRT_LINEAR || y.rank != 4 || y.dims[0] != gates.dims[0] ||
         y.dims[1] != D || y.dims[2] != N || y.dims[3] != H || (H > 1 && y.strides[3] != 1)))
        return "the result is (T, directions, N, hidden) float32, its rows without gaps";
    for (int i = 1; i < step.outputs; ++i)
        if (step.out[i].present() && (!is_state(step.out[i], D, N, H) || (i == 2 && p.cell != kLstm)))
            return "a last state is (directions, N, hidden) float32, its rows without gaps; only LSTM cells have a "
                   "second";
    return nullptr;
}

Message check(const Step &step) {
    if (step.inputs < 2 || step.inputs > 7 || step.outputs < 1 || step.outputs > 3)
        return fail("takes 2 to 7 inputs and gives 1 to 3 outputs, not %d and %d", step.inputs, step.outputs);
    const Message message = check_params(step.as<LstmParams>());
    return message ? message : check_operands(step);
}

uint64_t scratch(const Step &step, uint32_t threads) {
    const Layer layer(step);
    return static_cast<uint64_t>(layer.D * layer.groups) * layer.chain_bytes() +
           static_cast<uint64_t>(Layer::sums_numbers()) * sizeof(float) * threads;
}

Message run(const Step &step, const Env &env) {
    const Layer layer(step);
    for (int64_t n = 0; n < layer.N; ++n)
        if (layer.length(n) < 0 || layer.length(n) > layer.T)
            return fail("a sequence of %lld steps in a batch of %lld steps", static_cast<long long>(layer.length(n)),
                        static_cast<long long>(layer.T));
    const LstmParams &p = layer.p;
    const CellOptions options{p.clip, layer.blocks * kBlock};
    AnyFunctions any[2];
    bool usual = true;
    for (int d = 0; d < 2; ++d)
        for (int i = 0; i < 3; ++i) {
            const int j = 3 * d + i;
            any[d].code[i] = p.functions[j];
            any[d].alpha[i] = p.alpha[j];
            any[d].beta[i] = p.beta[j];
            usual = usual && p.functions[j] == (i == 0 && p.cell != kRnn ? kSigmoid : kTanh);
        }
    if (usual && p.cell != kRnn)
        Run<UsualFunctions>{layer, {}, options}.run(env);
    else if (usual)
        Run<UsualRnn>{layer, {}, options}.run(env);
    else
        Run<AnyFunctions>{layer, {any[0], any[1]}, options}.run(env);
    return nullptr;
}

// ---- packing: R (D, gates · hidden, hidden) as ONNX has it, to panels [phase][block][k][gate][16] ----

uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const LstmParams p = *static_cast<const LstmParams *>(params);
    if (check_params(p) || raw.dtype != VOXELRT_F32 || raw.rank != 3)
        return 0;
    const int64_t D = p.direction == kBidirectional ? 2 : 1;
    if (raw.dims[0] != D || raw.dims[1] != int64_t(gates_of(p.cell)) * p.hidden || raw.dims[2] != p.hidden)
        return 0;
    return static_cast<uint64_t>(D * packed_numbers(p.cell, p.hidden)) * sizeof(float);
}

void pack(const void *params, const Tensor &raw, char *packed) {
    const LstmParams p = *static_cast<const LstmParams *>(params);
    const int64_t H = p.hidden;
    const int G = gates_of(p.cell);
    const bool apart = p.cell == kGru && !p.reset_behind;
    float *to = reinterpret_cast<float *>(packed);
    const auto panels = [&](int64_t d, int first, int count) {
        for (int64_t block = 0; block < blocks_of(H); ++block)
            for (int64_t k = 0; k < H; ++k)
                for (int g = first; g < first + count; ++g)
                    for (int64_t j = block * kBlock; j < (block + 1) * kBlock; ++j)
                        *to++ = j < H ? raw.as<const float>()[d * raw.strides[0] + (g * H + j) * raw.strides[1] +
                                                              k * raw.strides[2]]
                                      : 0.0f;
    };
    for (int64_t d = 0; d < raw.dims[0]; ++d) {
        panels(d, 0, apart ? 2 : G);
        if (apart)
            panels(d, 2, 1);
    }
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(lstm, {{"lstm", 1, LstmParamsText, sizeof(LstmParams), check, run, scratch, pack_bytes, pack}})
