/* VoxelRT's C API: open a plan, make a context, run it. No Python, no allocation in a run after the first.
 *
 * - A voxelrt_plan is immutable and may be shared by any number of threads and contexts.
 * - A voxelrt_context owns the memory of one run in progress (its arena); one thread uses it at a time.
 * - A voxelrt_pool is a set of compute threads, ours or the caller's own parallel_for; contexts may share one.
 * - Every call that can fail returns a status and, if `error` is not NULL, an error object the caller releases.
 * - No call sets errno, throws, or prints. Structs start with their size, so that they can grow.
 * - After fork() a child may go on with plans, contexts and pools it inherited; threads are started anew.
 */
#ifndef VOXELRT_H
#define VOXELRT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define VOXELRT_API __attribute__((visibility("default")))
#else
#define VOXELRT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define VOXELRT_VERSION_MAJOR 0
#define VOXELRT_VERSION_MINOR 1
#define VOXELRT_VERSION_PATCH 0
#define VOXELRT_MAX_RANK 8

typedef struct voxelrt_plan voxelrt_plan;
typedef struct voxelrt_context voxelrt_context;
typedef struct voxelrt_pool voxelrt_pool;
typedef struct voxelrt_error voxelrt_error;

typedef enum voxelrt_status {
    VOXELRT_OK = 0,
    VOXELRT_INVALID_ARGUMENT = 1, /* the caller's mistake: shape, dtype, name, null pointer */
    VOXELRT_BAD_PLAN = 2,         /* damaged, truncated, foreign or newer plan */
    VOXELRT_NO_SECTION = 3,       /* the plan has no compiled section for this processor */
    VOXELRT_UNSUPPORTED = 4,      /* unknown kernel or kernel version, or a processor without AVX2 or NEON */
    VOXELRT_OUT_OF_MEMORY = 5,
    VOXELRT_CANCELLED = 6,
    VOXELRT_RUNTIME = 7, /* a kernel met a value it cannot work with, e.g. an index out of range */
    VOXELRT_IO = 8,      /* a file that cannot be opened or read */
    VOXELRT_HOST = 9     /* the host's own step callback failed */
} voxelrt_status;

typedef enum voxelrt_dtype {
    VOXELRT_F32 = 1,
    VOXELRT_F64 = 2,
    VOXELRT_F16 = 3,
    VOXELRT_BF16 = 4,
    VOXELRT_I8 = 5,
    VOXELRT_U8 = 6,
    VOXELRT_I16 = 7,
    VOXELRT_U16 = 8,
    VOXELRT_I32 = 9,
    VOXELRT_U32 = 10,
    VOXELRT_I64 = 11,
    VOXELRT_U64 = 12,
    VOXELRT_BOOL = 13
} voxelrt_dtype;

typedef enum voxelrt_layout {
    VOXELRT_LINEAR = 0,   /* dims and strides as they are */
    VOXELRT_BLOCKED16 = 1 /* (N, C, Z, Y, X) as [N][ceil(C/16)][Z][Y][X][16]; channels past C hold zeros */
} voxelrt_layout;

/* A tensor in the caller's memory. Strides count elements, not bytes, and may be negative or zero for inputs. */
typedef struct voxelrt_tensor {
    uint32_t struct_size;
    uint8_t dtype;  /* voxelrt_dtype */
    uint8_t layout; /* voxelrt_layout; LINEAR in calls to voxelrt_run */
    uint8_t rank;
    uint8_t reserved;
    void *data;
    int64_t dims[VOXELRT_MAX_RANK];
    int64_t strides[VOXELRT_MAX_RANK];
} voxelrt_tensor;

/* ---- errors ---- */
VOXELRT_API voxelrt_status voxelrt_error_status(const voxelrt_error *error);
VOXELRT_API const char *voxelrt_error_message(const voxelrt_error *error);
VOXELRT_API void voxelrt_error_release(voxelrt_error *error);

/* ---- the library ---- */
VOXELRT_API const char *voxelrt_version(void);
/* The instruction set in use: "avx2", "avx512" or "neon"; VOXELRT_CPU_ISA in the environment overrides. NULL and an
 * error where the processor has none of them or the variable names one that it has not. */
VOXELRT_API const char *voxelrt_isa(voxelrt_error **error);
/* The target name of compiled sections that this process runs: "x86-avx512", "x86-avx2" or "aarch64-neon". */
VOXELRT_API const char *voxelrt_target(voxelrt_error **error);
VOXELRT_API uint32_t voxelrt_crc32c(uint32_t seed, const void *data, size_t bytes);
/* The byte size of a serialised struct by name ("StepRecord"), 0 if unknown; writers check theirs against it. */
VOXELRT_API uint32_t voxelrt_record_size(const char *name);

/* ---- kernels, for the compiler of plans and for use on arrays ---- */
typedef struct voxelrt_kernel_info {
    uint32_t struct_size;
    uint32_t version;
    const char *name;
    const char *parameters; /* "i32 kernel[3];f32 slope;": a packed little-endian struct */
    uint32_t parameter_bytes;
} voxelrt_kernel_info;
/* The kernel number `index` of this library, or VOXELRT_INVALID_ARGUMENT past the end. */
VOXELRT_API voxelrt_status voxelrt_kernel_at(uint32_t index, voxelrt_kernel_info *info, voxelrt_error **error);
/* A kernel's operand: a tensor and, for inputs, the per-channel affine and leaky ReLU still to be applied on load:
 * x -> leaky(x * scale[n, c] + shift[n, c], slope); scale and shift are (N, C) float32 or both NULL. */
typedef struct voxelrt_operand {
    uint32_t struct_size;
    float pending_slope;
    voxelrt_tensor tensor;
    const float *pending_scale;
    const float *pending_shift;
} voxelrt_operand;
/* Whether a kernel takes these operands and parameters; their data is not looked at and may be NULL. */
VOXELRT_API voxelrt_status voxelrt_kernel_check(const char *name, const void *parameters, size_t parameter_bytes,
                                                const voxelrt_operand *inputs, uint32_t input_count,
                                                const voxelrt_operand *outputs, uint32_t output_count,
                                                voxelrt_error **error);
/* Run one kernel on arrays: the same checks and code as a step of a plan. */
VOXELRT_API voxelrt_status voxelrt_kernel_run(const char *name, const void *parameters, size_t parameter_bytes,
                                              const voxelrt_operand *inputs, uint32_t input_count,
                                              const voxelrt_operand *outputs, uint32_t output_count, voxelrt_pool *pool,
                                              voxelrt_error **error);
/* The packed size of a raw weight for a kernel, and the packing itself. */
VOXELRT_API voxelrt_status voxelrt_pack_bytes(const char *name, const void *parameters, size_t parameter_bytes,
                                              const voxelrt_tensor *raw, uint64_t *bytes, voxelrt_error **error);
VOXELRT_API voxelrt_status voxelrt_pack(const char *name, const void *parameters, size_t parameter_bytes,
                                        const voxelrt_tensor *raw, void *packed, uint64_t bytes, voxelrt_error **error);

/* ---- threads ---- */
typedef void (*voxelrt_task)(void *argument, uint32_t index, uint32_t worker);
/* The caller's own thread pool: run task(argument, i, worker) for i in [0, count), worker < threads, and return when
 * all are done. Two tasks with the same worker number must not overlap. */
typedef void (*voxelrt_parallel_for)(void *user, voxelrt_task task, void *argument, uint32_t count);
VOXELRT_API voxelrt_status voxelrt_pool_create(uint32_t threads, voxelrt_pool **pool, voxelrt_error **error);
VOXELRT_API voxelrt_status voxelrt_pool_create_external(uint32_t threads, voxelrt_parallel_for function, void *user,
                                                        voxelrt_pool **pool, voxelrt_error **error);
VOXELRT_API uint32_t voxelrt_pool_threads(const voxelrt_pool *pool);
VOXELRT_API void voxelrt_pool_release(voxelrt_pool *pool);

/* ---- plans ---- */
typedef struct voxelrt_plan_options {
    uint32_t struct_size;
    uint32_t skip_checksums; /* 1: trust the file; the structure is still checked */
    /* Since 0.2: checksums and packing are done on its threads, if it is not in use then; NULL: on the caller's. */
    voxelrt_pool *pool;
} voxelrt_plan_options;
/* Map a .vxp file. `options` may be NULL. */
VOXELRT_API voxelrt_status voxelrt_plan_open(const char *path, const voxelrt_plan_options *options, voxelrt_plan **plan,
                                             voxelrt_error **error);
/* A plan in the caller's memory, aligned to 64 bytes, that must outlive the plan. */
VOXELRT_API voxelrt_status voxelrt_plan_from_memory(const void *data, size_t bytes, const voxelrt_plan_options *options,
                                                    voxelrt_plan **plan, voxelrt_error **error);
VOXELRT_API void voxelrt_plan_release(voxelrt_plan *plan);
VOXELRT_API uint32_t voxelrt_plan_variants(const voxelrt_plan *plan);
typedef struct voxelrt_io_info {
    uint32_t struct_size;
    uint8_t dtype;
    uint8_t rank;
    uint8_t batched; /* 1: dims[0] is per run, from batch_min to batch_max of the variant */
    uint8_t reserved;
    const char *name;
    int64_t dims[VOXELRT_MAX_RANK];
} voxelrt_io_info;
typedef struct voxelrt_variant_info {
    uint32_t struct_size;
    uint32_t inputs, outputs, steps;
    uint32_t batch_min, batch_max;
    uint64_t arena_bytes; /* for a batch of one */
} voxelrt_variant_info;
VOXELRT_API voxelrt_status voxelrt_plan_variant(const voxelrt_plan *plan, uint32_t variant, voxelrt_variant_info *info,
                                                voxelrt_error **error);
VOXELRT_API voxelrt_status voxelrt_plan_input(const voxelrt_plan *plan, uint32_t variant, uint32_t index,
                                              voxelrt_io_info *info, voxelrt_error **error);
VOXELRT_API voxelrt_status voxelrt_plan_output(const voxelrt_plan *plan, uint32_t variant, uint32_t index,
                                               voxelrt_io_info *info, voxelrt_error **error);

/* ---- contexts ---- */
typedef struct voxelrt_context_options {
    uint32_t struct_size;
    uint32_t batch_capacity; /* largest batch that will be run; 0 means 1 */
} voxelrt_context_options;
VOXELRT_API voxelrt_status voxelrt_context_create(const voxelrt_plan *plan, voxelrt_pool *pool,
                                                  const voxelrt_context_options *options, voxelrt_context **context,
                                                  voxelrt_error **error);
VOXELRT_API void voxelrt_context_release(voxelrt_context *context);
/* The bytes that the context holds: arena, scratch and staging. */
VOXELRT_API uint64_t voxelrt_context_bytes(const voxelrt_context *context);

/* A step that the host executes (an ONNX Runtime island): fills the outputs, returns 0, or a message's status. */
typedef int (*voxelrt_host_step)(void *user, uint32_t variant, uint32_t island, const voxelrt_tensor *inputs,
                                 uint32_t input_count, voxelrt_tensor *outputs, uint32_t output_count);
typedef void (*voxelrt_progress)(void *user, uint32_t step, uint32_t steps);

typedef struct voxelrt_run_options {
    uint32_t struct_size;
    uint32_t reserved;
    const volatile int32_t *cancel; /* looked at between steps; non-zero stops the run */
    voxelrt_progress progress;
    void *progress_user;
    voxelrt_host_step host_step;
    void *host_user;
    uint64_t *step_time_ns;  /* one entry a step of the variant, or NULL */
    uint64_t *step_begin_ns; /* the same: when it began, by the monotonic clock */
} voxelrt_run_options;
/* Run the variant whose inputs have these shapes; of several, the one whose outputs have these shapes too. Inputs and
 * outputs are in the plan's order. `options` may be NULL. */
VOXELRT_API voxelrt_status voxelrt_run(voxelrt_context *context, const voxelrt_tensor *inputs, uint32_t input_count,
                                       const voxelrt_tensor *outputs, uint32_t output_count,
                                       const voxelrt_run_options *options, voxelrt_error **error);

#ifdef __cplusplus
}
#endif
#endif
