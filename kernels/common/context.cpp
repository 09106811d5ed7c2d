// Contexts and the executor: bind the caller's tensors, run the steps in order, look at the cancel flag between them.
#include "runtime.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>

using namespace voxelrt;
using format::IoRecord;
using format::OperandRecord;
using format::StepRecord;
using format::VariantRecord;

struct voxelrt_context {
    const voxelrt_plan *plan = nullptr;
    voxelrt_pool *pool = nullptr;
    uint32_t capacity = 1;
    Buffer arena, scratch;
    std::vector<Buffer> staging; // of inputs and outputs that the caller keeps with gaps; made on first use
    std::vector<const char *> io;
    std::vector<Tensor> tensors;         // the operands of one step, pending vectors behind them
    std::vector<voxelrt_tensor> public_; // the same for a host step
};

namespace {

uint32_t threads_of(const voxelrt_pool *pool) {
    return voxelrt_pool_threads(pool);
}

// The operands of a step for a batch, at their addresses. `io` may be null (addresses are then null too).
void bind(const voxelrt_context &context, const VariantRecord &variant, const StepRecord &step, uint32_t batch,
          const char *const *io, std::vector<Tensor> &tensors) {
    const uint32_t count = step.inputs + step.outputs + step.extras;
    const OperandRecord *records = context.plan->operands + step.first_operand;
    for (uint32_t i = 0; i < count; ++i) {
        const OperandRecord &record = records[i];
        Tensor tensor = describe(record, batch);
        const char *base = nullptr;
        switch (record.kind) {
        case format::kArena:
            base = context.arena.data() ? context.arena.data() + record.offset * context.capacity : nullptr;
            break;
        case format::kWeight:
            base = context.plan->weights[record.slot].data;
            break;
        case format::kInput:
            base = io ? io[record.slot] : nullptr;
            break;
        case format::kOutput:
            base = io ? io[variant.inputs + record.slot] : nullptr;
            break;
        default:
            break;
        }
        tensor.data = base ? const_cast<char *>(base) + record.inner : nullptr;
        tensors[i] = tensor;
    }
    for (uint32_t i = 0; i < step.inputs; ++i)
        if (records[i].pending_scale >= 0) {
            tensors[i].pending_scale = tensors[records[i].pending_scale].as<const float>();
            tensors[i].pending_shift = tensors[records[i].pending_shift].as<const float>();
        }
}

// Bounds for the whole batch, the kernel's own check, and the scratch it needs.
uint64_t prepare_step(voxelrt_context &context, const VariantRecord &variant, uint32_t index, uint32_t batch) {
    const StepRecord &record = context.plan->steps[index];
    bind(context, variant, record, batch, nullptr, context.tensors);
    const OperandRecord *records = context.plan->operands + record.first_operand;
    for (uint32_t i = 0; i < record.inputs + record.outputs + record.extras; ++i) {
        if (records[i].kind != format::kArena)
            continue;
        const uint64_t bytes = extent_elements(context.tensors[i], VOXELRT_BAD_PLAN) *
                               static_cast<uint64_t>(dtype_bytes(context.tensors[i].dtype));
        const uint64_t room = context.arena.bytes(), start = records[i].offset * context.capacity + records[i].inner;
        if (start > room || bytes > room - start)
            raise(VOXELRT_BAD_PLAN, "the plan is damaged: an operand leaves the arena at batch %u", batch);
    }
    const Kernel *kernel = context.plan->kernels[index];
    if (!kernel)
        return 0;
    const Step step{context.plan->params + record.params_offset, context.tensors.data(),
                    context.tensors.data() + record.inputs, static_cast<int>(record.inputs),
                    static_cast<int>(record.outputs)};
    if (Message message = kernel->check(step))
        raise(VOXELRT_BAD_PLAN, "the plan is damaged: step %u, %s: %s", index - variant.first_step, kernel->name,
              message);
    return kernel->scratch ? kernel->scratch(step, threads_of(context.pool)) : 0;
}

bool matches(const IoRecord &io, const voxelrt_tensor &given, uint32_t batch) {
    if (io.dtype != given.dtype || io.rank != given.rank)
        return false;
    for (int i = 0; i < io.rank; ++i)
        if (given.dims[i] != (i == 0 && io.batched ? io.dims[0] * batch : io.dims[i]))
            return false;
    return true;
}

std::string shape_text(const int64_t *dims, int rank) {
    std::string text = "(";
    for (int i = 0; i < rank; ++i)
        text += (i ? ", " : "") + std::to_string(dims[i]);
    return text + ")";
}

struct Tensors {
    const voxelrt_tensor *first;
    uint32_t count;
};

struct Chosen {
    uint32_t variant, batch;
};

// The variant and batch that the inputs' shapes ask for; of several the one whose outputs have the given shapes too.
Chosen choose_variant(const voxelrt_plan &plan, Tensors in, Tensors out) {
    const voxelrt_tensor *inputs = in.first;
    const uint32_t count = in.count;
    std::optional<Chosen> first;
    for (uint32_t index = 0; index < plan.variant_count; ++index) {
        const VariantRecord &variant = plan.variants[index];
        if (variant.inputs != count)
            continue;
        uint32_t batch = 1;
        for (uint32_t i = 0; i < count; ++i) {
            const IoRecord &io = plan.ios[variant.first_io + i];
            if (io.batched && inputs[i].rank == io.rank && io.dims[0] > 0 && inputs[i].dims[0] > 0 &&
                inputs[i].dims[0] / io.dims[0] <= UINT32_MAX) {
                batch = static_cast<uint32_t>(inputs[i].dims[0] / io.dims[0]);
                break;
            }
        }
        bool all = batch >= variant.batch_min && batch <= variant.batch_max;
        for (uint32_t i = 0; all && i < count; ++i)
            all = matches(plan.ios[variant.first_io + i], inputs[i], batch);
        if (!all)
            continue;
        if (!first)
            first = Chosen{index, batch};
        bool given = variant.outputs == out.count;
        for (uint32_t i = 0; given && i < out.count; ++i)
            given = matches(plan.ios[variant.first_io + count + i], out.first[i], batch);
        if (given)
            return {index, batch};
    }
    if (first)
        return *first;
    if (plan.variant_count && plan.variants[0].inputs != count)
        raise(VOXELRT_INVALID_ARGUMENT, "the plan takes %u inputs, %u were given", plan.variants[0].inputs, count);
    std::string text;
    for (uint32_t i = 0; i < count; ++i)
        text += (i ? ", " : "") + shape_text(inputs[i].dims, inputs[i].rank) + " " + dtype_name(inputs[i].dtype);
    std::string known;
    for (uint32_t v = 0; v < plan.variant_count && known.size() < 200; ++v)
        for (uint32_t i = 0; i < plan.variants[v].inputs; ++i) {
            const IoRecord &io = plan.ios[plan.variants[v].first_io + i];
            known += (known.empty() ? "" : i ? ", " : "; ") + shape_text(io.dims, io.rank) + " " + dtype_name(io.dtype);
            if (io.batched)
                known += " (batch " + std::to_string(plan.variants[v].batch_min) + " to " +
                         std::to_string(plan.variants[v].batch_max) + ")";
        }
    raise(VOXELRT_INVALID_ARGUMENT, "no variant takes inputs of %s; the plan was compiled for %s", text.c_str(),
          known.c_str());
}

Tensor caller_tensor(const voxelrt_tensor &given, const IoRecord &io, uint32_t batch, const char *what) {
    if (!matches(io, given, batch))
        raise(VOXELRT_INVALID_ARGUMENT, "an %s has the shape %s %s; the plan has %s %s", what,
              shape_text(given.dims, given.rank).c_str(), dtype_name(given.dtype), shape_text(io.dims, io.rank).c_str(),
              dtype_name(io.dtype));
    Tensor tensor;
    tensor.data = static_cast<char *>(given.data);
    tensor.dtype = given.dtype;
    tensor.rank = given.rank;
    std::copy_n(given.dims, given.rank, tensor.dims);
    std::copy_n(given.strides, given.rank, tensor.strides);
    if (!tensor.data && tensor.count() != 0)
        raise(VOXELRT_INVALID_ARGUMENT, "an %s has no data", what);
    return tensor;
}

Tensor staged(voxelrt_context &context, uint32_t index, const Tensor &caller) {
    Tensor tensor = caller;
    int64_t stride = 1;
    for (int i = tensor.rank - 1; i >= 0; --i) {
        tensor.strides[i] = stride;
        stride *= tensor.dims[i];
    }
    const uint64_t bytes = static_cast<uint64_t>(stride) * static_cast<uint64_t>(dtype_bytes(tensor.dtype));
    if (context.staging[index].bytes() < bytes)
        context.staging[index] = Buffer(bytes);
    tensor.data = context.staging[index].data();
    return tensor;
}

voxelrt_tensor to_public(const Tensor &tensor) {
    voxelrt_tensor made{};
    made.struct_size = sizeof made;
    made.dtype = tensor.dtype;
    made.layout = tensor.layout;
    made.rank = tensor.rank;
    made.data = tensor.data;
    std::copy_n(tensor.dims, VOXELRT_MAX_RANK, made.dims);
    std::copy_n(tensor.strides, VOXELRT_MAX_RANK, made.strides);
    return made;
}

void run_host_step(voxelrt_context &context, const StepRecord &record, uint32_t variant,
                   const voxelrt_run_options &options) {
    if (!options.host_step)
        raise(VOXELRT_UNSUPPORTED, "the plan has a step that its host must execute (an ONNX Runtime island), and no "
                                   "host step was given");
    const uint32_t count = record.inputs + record.outputs;
    for (uint32_t i = 0; i < count; ++i)
        context.public_[i] = to_public(context.tensors[i]);
    uint32_t island;
    std::memcpy(&island, context.plan->params + record.params_offset, sizeof island);
    if (options.host_step(options.host_user, variant, island, context.public_.data(), record.inputs,
                          context.public_.data() + record.inputs, record.outputs) != 0)
        raise(VOXELRT_HOST, "the host's step failed (island %u)", island);
}

uint64_t monotonic_ns() {
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
            .count());
}

// Whether a step's guards let it run; its operands are bound.
bool wanted(const voxelrt_context &context, const StepRecord &step) {
    const format::Guards guards(step.guards);
    const uint32_t first = step.inputs + step.outputs + step.extras - guards.count;
    for (uint32_t i = 0; i < guards.count; ++i)
        if ((*context.tensors[first + i].as<const uint8_t>() != 0) != ((guards.wanted >> i & 1) != 0))
            return false;
    return true;
}

void run_steps(voxelrt_context &context, uint32_t variant_index, uint32_t batch, const voxelrt_run_options &options) {
    const voxelrt_plan &plan = *context.plan;
    const VariantRecord &variant = plan.variants[variant_index];
    PoolUse use(context.pool);
    use.env.scratch = context.scratch.data();
    const bool timed = options.step_time_ns || options.step_begin_ns; // off, a step costs two branches more
    for (uint32_t i = 0; i < variant.steps; ++i) {
        if (options.cancel && *options.cancel)
            raise(VOXELRT_CANCELLED, "the run was cancelled after %u of %u steps", i, variant.steps);
        if (options.progress)
            options.progress(options.progress_user, i, variant.steps);
        const StepRecord &record = plan.steps[variant.first_step + i];
        const uint64_t start = timed ? monotonic_ns() : 0;
        bind(context, variant, record, batch, context.io.data(), context.tensors);
        const Kernel *kernel = plan.kernels[variant.first_step + i];
        if (!wanted(context, record)) {
            // the branch that is not taken
        } else if (!kernel) {
            run_host_step(context, record, variant_index, options);
        } else {
            const Step step{plan.params + record.params_offset, context.tensors.data(),
                            context.tensors.data() + record.inputs, static_cast<int>(record.inputs),
                            static_cast<int>(record.outputs)};
            if (Message message = kernel->run(step, use.env))
                raise(VOXELRT_RUNTIME, "step %u, %s: %s", i, kernel->name, message);
        }
        if (options.step_time_ns)
            options.step_time_ns[i] = monotonic_ns() - start;
        if (options.step_begin_ns)
            options.step_begin_ns[i] = start;
    }
    if (options.progress)
        options.progress(options.progress_user, variant.steps, variant.steps);
}

} // namespace

extern "C" {

voxelrt_status voxelrt_context_create(const voxelrt_plan *plan, voxelrt_pool *pool,
                                      const voxelrt_context_options *options, voxelrt_context **context,
                                      voxelrt_error **error) {
    return guarded(error, [&] {
        if (!plan || !context)
            raise(VOXELRT_INVALID_ARGUMENT, "plan or context is NULL");
        const auto asked = taken(options, "options", 2 * sizeof(uint32_t));
        auto made = std::make_unique<voxelrt_context>();
        made->plan = plan;
        made->pool = pool;
        made->capacity = asked.batch_capacity ? asked.batch_capacity : 1;
        uint64_t arena = 0;
        uint32_t ios = 0, operands = 1;
        for (uint32_t v = 0; v < plan->variant_count; ++v) {
            const VariantRecord &variant = plan->variants[v];
            arena = std::max(arena, multiply_checked(variant.arena_bytes, std::min(made->capacity, variant.batch_max),
                                                     VOXELRT_OUT_OF_MEMORY));
            ios = std::max(ios, variant.inputs + variant.outputs);
            for (uint32_t i = 0; i < variant.steps; ++i) {
                const StepRecord &step = plan->steps[variant.first_step + i];
                operands = std::max(operands, step.inputs + step.outputs + step.extras);
            }
        }
        uint32_t most = 1;
        for (uint32_t v = 0; v < plan->variant_count; ++v)
            most = std::max(most, plan->variants[v].batch_max);
        made->capacity = std::min(made->capacity, most);
        made->arena = Buffer(arena);
        made->io.resize(ios);
        made->staging.resize(ios);
        made->tensors.resize(operands);
        made->public_.resize(operands);
        uint64_t scratch = 0;
        for (uint32_t v = 0; v < plan->variant_count; ++v) {
            const VariantRecord &variant = plan->variants[v];
            const uint32_t batch = std::min(made->capacity, variant.batch_max);
            for (uint32_t i = 0; i < variant.steps; ++i)
                scratch = std::max(scratch, prepare_step(*made, variant, variant.first_step + i, batch));
        }
        made->scratch = Buffer(scratch);
        *context = made.release();
    });
}

void voxelrt_context_release(voxelrt_context *context) {
    delete context;
}

uint64_t voxelrt_context_bytes(const voxelrt_context *context) {
    if (!context)
        return 0;
    uint64_t bytes = context->arena.bytes() + context->scratch.bytes();
    for (const Buffer &buffer : context->staging)
        bytes += buffer.bytes();
    return bytes;
}

voxelrt_status voxelrt_run(voxelrt_context *context, const voxelrt_tensor *inputs, uint32_t input_count,
                           const voxelrt_tensor *outputs, uint32_t output_count, const voxelrt_run_options *options,
                           voxelrt_error **error) {
    return guarded(error, [&] {
        if (!context || (input_count && !inputs) || (output_count && !outputs))
            raise(VOXELRT_INVALID_ARGUMENT, "context, inputs or outputs is NULL");
        const auto asked = taken(options, "options", offsetof(voxelrt_run_options, step_begin_ns));
        for (uint32_t i = 0; i < input_count; ++i)
            check_struct_size(&inputs[i], "input");
        for (uint32_t i = 0; i < output_count; ++i)
            check_struct_size(&outputs[i], "output");
        const auto [index, batch] = choose_variant(*context->plan, {inputs, input_count}, {outputs, output_count});
        const VariantRecord &variant = context->plan->variants[index];
        if (batch > context->capacity)
            raise(VOXELRT_INVALID_ARGUMENT, "a batch of %u is over the context's capacity of %u", batch,
                  context->capacity);
        if (output_count != variant.outputs)
            raise(VOXELRT_INVALID_ARGUMENT, "the plan has %u outputs, %u were given", variant.outputs, output_count);
        const IoRecord *ios = context->plan->ios + variant.first_io;
        for (uint32_t i = 0; i < input_count; ++i) {
            const Tensor caller = caller_tensor(inputs[i], ios[i], batch, "input");
            Tensor used = caller;
            if (!caller.contiguous()) {
                used = staged(*context, i, caller);
                copy_strided(caller, used);
            }
            context->io[i] = used.data;
        }
        for (uint32_t i = 0; i < output_count; ++i) {
            const Tensor caller = caller_tensor(outputs[i], ios[input_count + i], batch, "output");
            context->io[input_count + i] =
                (caller.contiguous() ? caller : staged(*context, input_count + i, caller)).data;
        }
        run_steps(*context, index, batch, asked);
        for (uint32_t i = 0; i < output_count; ++i) {
            const Tensor caller = caller_tensor(outputs[i], ios[input_count + i], batch, "output");
            if (!caller.contiguous())
                copy_strided(staged(*context, input_count + i, caller), caller);
        }
    });
}
}
