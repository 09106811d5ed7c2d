// A device's program: one plan, several contexts that run it at once, each with threads of its own.
// Usage: device PLAN.vxp INPUT.f32 OUTPUT.f32; prints the milliseconds from opening the plan to the first result.
#include <voxelrt.hpp>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <thread>

namespace {

constexpr int kContexts = 4, kRuns = 3;
using Floats = std::vector<float>;

struct Caller {
    voxelrt::Pool pool{2};
    voxelrt::Context context;
    Floats out;
    std::string failure;

    explicit Caller(const voxelrt::Plan &plan)
        : context(plan, pool), out(static_cast<std::size_t>(plan.output().count())) {}
    void run(const voxelrt::Plan &plan, const Floats &in) {
        try {
            for (int i = 0; i < kRuns; ++i)
                context.run({voxelrt::tensor(in.data(), plan.input().dims)},
                            {voxelrt::tensor(out.data(), plan.output().dims)});
        } catch (const voxelrt::Error &error) {
            failure = error.what();
        }
    }
};

int run(char **argv) {
    const auto start = std::chrono::steady_clock::now();
    const voxelrt::Plan plan(argv[1]);
    Floats in(static_cast<std::size_t>(plan.input().count()));
    std::ifstream source(argv[2], std::ios::binary);
    if (!source.read(reinterpret_cast<char *>(in.data()), static_cast<std::streamsize>(in.size() * sizeof(float))))
        throw std::runtime_error("the input cannot be read");
    Caller first(plan);
    first.run(plan, in);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;

    std::vector<std::unique_ptr<Caller>> callers;
    std::vector<std::thread> threads;
    for (int i = 0; i < kContexts; ++i)
        callers.push_back(std::make_unique<Caller>(plan));
    for (const auto &caller : callers)
        threads.emplace_back([&plan, &in, &caller] { caller->run(plan, in); });
    for (std::thread &thread : threads)
        thread.join();
    for (const auto &caller : callers)
        if (!caller->failure.empty() ||
            std::memcmp(caller->out.data(), first.out.data(), first.out.size() * sizeof(float)) != 0)
            throw std::runtime_error("contexts disagree " + caller->failure);

    std::ofstream target(argv[3], std::ios::binary);
    target.write(reinterpret_cast<const char *>(first.out.data()),
                 static_cast<std::streamsize>(first.out.size() * sizeof(float)));
    std::printf("first result after %.1f ms; %d contexts of %llu bytes agree\n", took.count(), kContexts,
                static_cast<unsigned long long>(first.context.bytes()));
    return target.good() ? 0 : 1;
}

} // namespace

int main(int argc, char **argv) {
    try {
        if (argc != 4)
            throw std::runtime_error("usage: device PLAN INPUT OUTPUT");
        return run(argv);
    } catch (const voxelrt::Error &error) {
        std::cerr << "status " << error.status() << ": " << error.what() << "\n";
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
    }
    return 1;
}
