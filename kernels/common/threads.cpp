// The compute threads: a pool of ours, or the caller's parallel_for behind the same face.
#include "runtime.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <unistd.h>

namespace {

constexpr uint64_t kLeastKept = 2 << 20, kMostKept = 64 << 20; // bytes of scratch that a pool keeps between runs

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// One generation of worker threads. Tasks are claimed from a counter; which worker takes which does not matter,
// because kernels cut their work independently of the threads.
class Workers {
  public:
    explicit Workers(uint32_t threads) {
        try {
            for (uint32_t worker = 1; worker < threads; ++worker)
                threads_.emplace_back([this, worker] { loop(worker); });
        } catch (...) {
            stop();
            throw;
        }
    }
    ~Workers() { stop(); }
    Workers(const Workers &) = delete;
    Workers &operator=(const Workers &) = delete;

    void run(voxelrt_task task, void *argument, uint32_t count) {
        task_ = task;
        argument_ = argument;
        count_ = count;
        next_.store(0, std::memory_order_relaxed);
        busy_.store(static_cast<uint32_t>(threads_.size()), std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        work(0);
        for (uint32_t spins = 0; busy_.load(std::memory_order_acquire) != 0; ++spins) {
            if (spins < kSpins)
                relax();
            else
                std::this_thread::yield();
        }
    }

    // After fork() the threads do not exist in the child: forget them without joining.
    void abandon() {
        for (std::thread &thread : threads_)
            thread.detach();
        threads_.clear();
    }

  private:
    static constexpr uint32_t kSpins = 4000; // some microseconds: the gap between two steps of a plan

    void work(uint32_t worker) {
        for (;;) {
            const uint32_t index = next_.fetch_add(1, std::memory_order_relaxed);
            if (index >= count_)
                return;
            task_(argument_, index, worker);
        }
    }

    void loop(uint32_t worker) {
        uint64_t seen = 0;
        for (;;) {
            for (uint32_t spins = 0; spins < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spins)
                relax();
            if (generation_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
            }
            seen = generation_.load(std::memory_order_acquire);
            if (stopping_)
                return;
            work(worker);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    void stop() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (std::thread &thread : threads_)
            thread.join();
        threads_.clear();
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint64_t> generation_{0};
    std::atomic<uint32_t> next_{0}, busy_{0};
    voxelrt_task task_ = nullptr;
    void *argument_ = nullptr;
    uint32_t count_ = 0;
    bool stopping_ = false;
};

} // namespace

struct voxelrt_pool {
    uint32_t threads = 1;
    voxelrt_parallel_for external = nullptr;
    void *user = nullptr;
    std::unique_ptr<std::mutex> in_use = std::make_unique<std::mutex>(); // one run at a time
    std::unique_ptr<Workers> workers;
    pid_t owner = 0;
    voxelrt::Buffer kept; // scratch of the last run, guarded by in_use

    void ensure_workers() {
        const pid_t self = getpid();
        if (owner != self) { // first use, or the child of a fork
            if (workers) {
                workers->abandon();
                // The copied locks may be held by threads that are gone: leak them with what they guard.
                (void)workers.release();
            }
            workers = std::make_unique<Workers>(threads);
            owner = self;
        }
    }
};

namespace voxelrt {

PoolUse::PoolUse(voxelrt_pool *pool, bool wait) : env{nullptr, nullptr, 1, nullptr}, pool_(nullptr) {
    if (!pool)
        return;
    if (pool->external) {
        env.threads = pool->threads;
        env.for_each = pool->external;
        env.pool = pool->user;
        return;
    }
    if (pool->threads == 1)
        return;
    if (pool->owner != 0 && pool->owner != getpid())
        (void)pool->in_use.release(), pool->in_use = std::make_unique<std::mutex>();
    if (wait)
        pool->in_use->lock();
    else if (!pool->in_use->try_lock())
        return;
    try {
        pool->ensure_workers();
    } catch (...) {
        pool->in_use->unlock();
        throw Failure{VOXELRT_OUT_OF_MEMORY, "the compute threads could not be started"};
    }
    env.for_each = [](void *user, voxelrt_task task, void *argument, uint32_t count) {
        static_cast<Workers *>(user)->run(task, argument, count);
    };
    env.threads = pool->threads;
    env.pool = pool->workers.get();
    pool_ = pool;
}

char *PoolUse::scratch(uint64_t bytes) {
    Buffer &buffer = pool_ && bytes >= kLeastKept && bytes <= kMostKept ? pool_->kept : own_;
    if (buffer.bytes() < bytes) {
        buffer = Buffer(); // before the new one is there
        buffer = Buffer(bytes);
    }
    return buffer.data();
}

PoolUse::~PoolUse() {
    if (pool_)
        pool_->in_use->unlock();
}

} // namespace voxelrt

using namespace voxelrt;

extern "C" {

static voxelrt_status create(uint32_t threads, voxelrt_parallel_for function, void *user, voxelrt_pool **pool,
                             voxelrt_error **error) {
    return guarded(error, [&] {
        if (!pool || threads < 1 || threads > 1024)
            raise(VOXELRT_INVALID_ARGUMENT, "a pool has 1 to 1024 threads, not %u", threads);
        auto made = std::make_unique<voxelrt_pool>();
        made->threads = threads;
        made->external = function;
        made->user = user;
        *pool = made.release();
    });
}

voxelrt_status voxelrt_pool_create(uint32_t threads, voxelrt_pool **pool, voxelrt_error **error) {
    return create(threads, nullptr, nullptr, pool, error);
}

voxelrt_status voxelrt_pool_create_external(uint32_t threads, voxelrt_parallel_for function, void *user,
                                            voxelrt_pool **pool, voxelrt_error **error) {
    if (!function)
        return guarded(error, [] { raise(VOXELRT_INVALID_ARGUMENT, "the parallel_for function is NULL"); });
    return create(threads, function, user, pool, error);
}

uint32_t voxelrt_pool_threads(const voxelrt_pool *pool) {
    return pool ? pool->threads : 1;
}

void voxelrt_pool_release(voxelrt_pool *pool) {
    if (pool && pool->workers && pool->owner != getpid()) {
        pool->workers->abandon();
        (void)pool->workers.release();
        (void)pool->in_use.release();
    }
    delete pool;
}
}
