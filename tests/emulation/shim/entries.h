// Calling an entry by name with arguments from a file, and reading and writing that file.
#pragma once
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda_shim.h"

namespace voxelrt_shim {

using Entry = void (*)(const uint64_t *);

// Arguments are 64-bit slots that hold each value's bits; the entry's own type says how many bits count.
template <typename T> T slot_value(uint64_t slot) {
    static_assert(sizeof(T) <= sizeof slot, "an argument has at most 8 bytes");
    T value;
    std::memcpy(&value, &slot, sizeof value);
    return value;
}

template <typename... A, size_t... I>
void call_with(void (*function)(A...), const uint64_t *slots, std::index_sequence<I...>) {
    function(slot_value<A>(slots[I])...);
}
template <auto F> struct Caller;
template <typename... A, void (*F)(A...)> struct Caller<F> {
    static constexpr size_t count = sizeof...(A);
    static void call(const uint64_t *slots) { call_with(F, slots, std::index_sequence_for<A...>()); }
};

Entry find_entry(const std::string &name); // made for each cuda.cu by shim_runner.py
size_t entry_arguments_of(const std::string &name);

struct Launch {
    std::string name;
    uint32_t grid[3], block[3], shared;
    std::vector<uint64_t> arguments;
};
struct Job {
    // Each buffer is an allocation of its own and exactly as large as it says, so that ASan sees what lies beside it.
    std::vector<std::unique_ptr<unsigned char[]>> buffers;
    std::vector<uint64_t> sizes;
    std::vector<Launch> launches;
};

template <typename T> T read_value(FILE *file) {
    T value;
    if (std::fread(&value, sizeof value, 1, file) != 1)
        std::abort();
    return value;
}

inline Job read_job(const char *path) {
    FILE *file = std::fopen(path, "rb");
    if (!file)
        std::abort();
    Job job;
    for (uint32_t n = read_value<uint32_t>(file); n; --n) {
        const uint64_t size = read_value<uint64_t>(file);
        job.buffers.emplace_back(new unsigned char[size]);
        job.sizes.push_back(size);
        if (size && std::fread(job.buffers.back().get(), size, 1, file) != 1)
            std::abort();
    }
    for (uint32_t n = read_value<uint32_t>(file); n; --n) {
        Launch launch;
        launch.name.resize(read_value<uint32_t>(file));
        if (std::fread(&launch.name[0], launch.name.size(), 1, file) != 1)
            std::abort();
        for (uint32_t *dims : {launch.grid, launch.block})
            for (int axis = 0; axis < 3; ++axis)
                dims[axis] = read_value<uint32_t>(file);
        launch.shared = read_value<uint32_t>(file);
        for (uint32_t left = read_value<uint32_t>(file); left; --left) {
            const int32_t buffer = read_value<int32_t>(file); // or -1: a number
            uint64_t value = read_value<uint64_t>(file);
            if (buffer >= 0)
                value += (uint64_t)(uintptr_t)job.buffers.at((size_t)buffer).get();
            launch.arguments.push_back(value);
        }
        if (launch.arguments.size() != entry_arguments_of(launch.name)) {
            std::fprintf(stderr, "shim: %s takes %zu arguments and was given %zu\n", launch.name.c_str(),
                         entry_arguments_of(launch.name), launch.arguments.size());
            std::exit(3);
        }
        job.launches.push_back(std::move(launch));
    }
    std::fclose(file);
    return job;
}

inline void write_job(const Job &job, const char *path) {
    FILE *file = std::fopen(path, "wb");
    if (!file)
        std::abort();
    for (size_t i = 0; i < job.buffers.size(); ++i)
        if (job.sizes[i] && std::fwrite(job.buffers[i].get(), job.sizes[i], 1, file) != 1)
            std::abort();
    std::fclose(file);
}

} // namespace voxelrt_shim
