// The machine's ceilings: fused multiply-adds in registers, and copying between two large arrays.
// Compiled for the machine it runs on, when the bench starts.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 64, kChains = 24;
#elif defined(__AVX2__)
constexpr int kWidth = 32, kChains = 12;
#else
constexpr int kWidth = 16, kChains = 24;
#endif
typedef float Vector __attribute__((vector_size(kWidth)));
constexpr int kLanes = kWidth / 4;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Enough independent chains to hide the latency of the multiply-add on every unit.
void multiply_add(int64_t rounds, float factor, float *sink) {
    Vector chain[kChains];
    Vector a, b;
    for (int lane = 0; lane < kLanes; ++lane) {
        a[lane] = factor;
        b[lane] = 1.0f - factor;
    }
    for (int i = 0; i < kChains; ++i)
        chain[i] = b * static_cast<float>(i);
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
        for (int i = 0; i < kChains; ++i)
            chain[i] = chain[i] * a + b;
    }
    Vector sum = chain[0];
    for (int i = 1; i < kChains; ++i)
        sum += chain[i];
    for (int lane = 0; lane < kLanes; ++lane)
        sink[lane] = sum[lane];
}

void copy_ordinary(float *to, const float *from, size_t count) {
    for (size_t i = 0; i < count; i += kLanes)
        *reinterpret_cast<Vector *>(to + i) = *reinterpret_cast<const Vector *>(from + i);
}

void copy_streaming(float *to, const float *from, size_t count) {
#if defined(__AVX512F__)
    for (size_t i = 0; i < count; i += 16)
        _mm512_stream_ps(to + i, _mm512_load_ps(from + i));
    _mm_sfence();
#elif defined(__AVX2__)
    for (size_t i = 0; i < count; i += 8)
        _mm256_stream_ps(to + i, _mm256_load_ps(from + i));
    _mm_sfence();
#else
    copy_ordinary(to, from, count);
#endif
}

// Run work(thread) on all threads at once; the time from the common start to the last one's end.
template <class Work> double together(int threads, Work work) {
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> team;
    for (int t = 0; t < threads; ++t)
        team.emplace_back([&, t] {
            ready.fetch_add(1);
            while (!go.load(std::memory_order_acquire))
                std::this_thread::yield();
            work(t);
        });
    while (ready.load() < threads)
        std::this_thread::yield();
    const auto start = Clock::now();
    go.store(true, std::memory_order_release);
    for (auto &thread : team)
        thread.join();
    return seconds_since(start);
}

} // namespace

extern "C" {

// GFLOP/s in fp32, a multiply-add counted as two; the best of `tries` slices of about 10 ms: short enough to fall
// between other programs.
double bench_fma_gflops(int threads, int tries) {
    int64_t rounds = 1 << 14;
    std::vector<float> sink(static_cast<size_t>(threads) * kLanes);
    double best = 0;
    for (int i = 0; i < tries;) {
        const double s =
            together(threads, [&](int t) { multiply_add(rounds, 0.999f, &sink[static_cast<size_t>(t) * kLanes]); });
        if (s < 0.008) {
            rounds *= 2;
            continue;
        }
        const double flops = 2.0 * kLanes * kChains * static_cast<double>(rounds) * threads;
        if (flops / s > best)
            best = flops / s;
        ++i;
    }
    return best * 1e-9;
}

// GB/s of copying `bytes`, read and written bytes both counted; the best of `tries`. 0 where memory is short.
double bench_copy_gbps(int threads, size_t bytes, int streaming, int tries) {
    const size_t count = bytes / 4 / static_cast<size_t>(threads) / kLanes * kLanes;
    const size_t size = count * 4 * static_cast<size_t>(threads);
    float *from = static_cast<float *>(std::aligned_alloc(64, size));
    float *to = static_cast<float *>(std::aligned_alloc(64, size));
    double best = 0;
    if (from && to) {
        for (size_t i = 0; i < size / 4; ++i)
            from[i] = to[i] = static_cast<float>(i & 1023);
        for (int i = 0; i < tries; ++i) {
            const double s = together(threads, [&](int t) {
                const size_t start = count * static_cast<size_t>(t);
                (streaming ? copy_streaming : copy_ordinary)(to + start, from + start, count);
            });
            const double rate = 2.0 * static_cast<double>(size) / s;
            if (rate > best)
                best = rate;
        }
    }
    std::free(from);
    std::free(to);
    return best * 1e-9;
}
}
