// The shim's fibers, its scheduler, and a main that runs the launches of a file (see tests/emulation/shim_runner.py).
#include "cuda_shim.h"

#include <ucontext.h>

#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "entries.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace voxelrt_shim {

Thread *current = nullptr;
dim3 block_dim, grid_dim;
uint3 block_index;

namespace {

enum class State { ready, at_block_barrier, at_warp_barrier, done };
constexpr size_t STACK_BYTES = 128 * 1024;

struct Fiber : Thread {
    ucontext_t context;
    State state;
    unsigned mask;
    unsigned char slot[64];
    std::vector<unsigned char> stack;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
std::vector<unsigned char> shared_bytes;
Entry entry;
const uint64_t *entry_arguments;
const void *scheduler_stack;
size_t scheduler_size;

void enter(void **save, const void *bottom, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(save, bottom, size);
#else
    (void)save, (void)bottom, (void)size;
#endif
}

void arrived(void *save, const void **bottom, size_t *size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(save, bottom, size);
#else
    (void)save, (void)bottom, (void)size;
#endif
}

[[noreturn]] void fail(const std::string &what) {
    std::fprintf(stderr, "shim: %s (block %u, %u, %u)\n", what.c_str(), block_index.x, block_index.y, block_index.z);
    std::exit(3);
}

void wait_as(State state, unsigned mask) {
    Fiber &me = *static_cast<Fiber *>(current);
    me.state = state;
    me.mask = mask;
    void *fake = nullptr;
    enter(&fake, scheduler_stack, scheduler_size);
    swapcontext(&me.context, &scheduler);
    arrived(fake, nullptr, nullptr);
}

void fiber_main() {
    arrived(nullptr, &scheduler_stack, &scheduler_size);
    entry(entry_arguments);
    current = static_cast<Thread *>(current);
    static_cast<Fiber *>(current)->state = State::done;
    enter(nullptr, scheduler_stack, scheduler_size);
    swapcontext(&static_cast<Fiber *>(current)->context, &scheduler);
}

void resume(Fiber &fiber) {
    current = &fiber;
    void *fake = nullptr;
    enter(&fake, fiber.stack.data(), fiber.stack.size());
    swapcontext(&scheduler, &fiber.context);
    arrived(fake, nullptr, nullptr);
}

bool release_warps() {
    bool any = false;
    for (size_t first = 0; first < fibers.size(); first += 32) {
        const size_t end = std::min(first + 32, fibers.size());
        unsigned live = 0, waiting = 0, mask = 0;
        for (size_t i = first; i < end; ++i) {
            live |= (fibers[i].state != State::done ? 1u : 0u) << (i - first);
            if (fibers[i].state == State::at_warp_barrier) {
                waiting |= 1u << (i - first);
                mask |= fibers[i].mask;
            }
        }
        if (!waiting || waiting != (live & mask))
            continue;
        for (size_t i = first; i < end; ++i)
            if (fibers[i].state == State::at_warp_barrier)
                fibers[i].state = State::ready;
        any = true;
    }
    return any;
}

bool release_block() {
    size_t waiting = 0, done = 0;
    for (const Fiber &fiber : fibers) {
        waiting += fiber.state == State::at_block_barrier;
        done += fiber.state == State::done;
    }
    if (!waiting)
        return false;
    if (waiting + done != fibers.size() || done)
        fail("__syncthreads was reached by " + std::to_string(waiting) + " of " + std::to_string(fibers.size()) +
             " threads; " + std::to_string(done) + " had returned");
    for (Fiber &fiber : fibers)
        fiber.state = State::ready;
    return true;
}

void run_block(const std::vector<size_t> &order, size_t shared) {
    shared_bytes.assign(shared, 0xFF);
    shared_bytes.shrink_to_fit();
    for (size_t i = 0; i < fibers.size(); ++i) {
        Fiber &fiber = fibers[i];
        fiber.state = State::ready;
        fiber.linear = (unsigned)i, fiber.lane = (unsigned)(i % 32), fiber.warp = (unsigned)(i / 32);
        fiber.index = {(unsigned)(i % block_dim.x), (unsigned)(i / block_dim.x % block_dim.y),
                       (unsigned)(i / block_dim.x / block_dim.y)};
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
    }
    for (;;) {
        bool ran = false, all_done = true;
        for (size_t i : order) {
            if (fibers[i].state == State::ready) {
                resume(fibers[i]);
                ran = true;
            }
            all_done = all_done && fibers[i].state == State::done;
        }
        if (all_done)
            return;
        if (!ran && !release_warps() && !release_block())
            fail("threads wait for each other: a warp's mask names threads that wait elsewhere");
    }
}

} // namespace

void block_barrier() {
    wait_as(State::at_block_barrier, 0);
}
void warp_barrier(unsigned mask) {
    wait_as(State::at_warp_barrier, mask);
}
unsigned char *lane_slot(unsigned lane) {
    return fibers.at(current->warp * 32 + lane).slot;
}
unsigned char *dynamic_shared() {
    return shared_bytes.data();
}
unsigned live_lanes() {
    unsigned live = 0;
    for (unsigned lane = 0; lane < 32 && current->warp * 32 + lane < fibers.size(); ++lane)
        live |= (fibers[current->warp * 32 + lane].state != State::done ? 1u : 0u) << lane;
    return live;
}

static void launch(const Launch &how, unsigned seed) {
    entry = find_entry(how.name);
    if (!entry)
        fail("there is no entry " + how.name);
    entry_arguments = how.arguments.data();
    grid_dim = dim3(how.grid[0], how.grid[1], how.grid[2]);
    block_dim = dim3(how.block[0], how.block[1], how.block[2]);
    fibers = std::vector<Fiber>((size_t)how.block[0] * how.block[1] * how.block[2]);
    for (Fiber &fiber : fibers)
        fiber.stack.resize(STACK_BYTES);
    std::vector<size_t> order(fibers.size()), blocks((size_t)how.grid[0] * how.grid[1] * how.grid[2]);
    std::iota(order.begin(), order.end(), 0);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::mt19937 random(seed);
    // Seed 0 is ascending order and seed 1 descending; others shuffle, anew for each block.
    if (seed == 1) {
        std::reverse(order.begin(), order.end());
        std::reverse(blocks.begin(), blocks.end());
    } else if (seed > 1) {
        std::shuffle(blocks.begin(), blocks.end(), random);
    }
    for (size_t b : blocks) {
        if (seed > 1)
            std::shuffle(order.begin(), order.end(), random);
        block_index = {(unsigned)(b % how.grid[0]), (unsigned)(b / how.grid[0] % how.grid[1]),
                       (unsigned)(b / how.grid[0] / how.grid[1])};
        run_block(order, how.shared);
    }
}

} // namespace voxelrt_shim

int main(int argc, char **argv) {
    using namespace voxelrt_shim;
    if (argc != 4)
        fail("usage: shim INPUT OUTPUT SEED");
    Job job = read_job(argv[1]);
    for (const Launch &how : job.launches)
        launch(how, (unsigned)std::atoi(argv[3]));
    write_job(job, argv[2]);
    return 0;
}
