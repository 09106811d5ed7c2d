/* What a run costs after the first one: calls of malloc and its kin, and page faults, of the whole process.
 * Usage: steady PLAN.vxp INPUT.f32. This program's own malloc stands before the C library's, and counts. */
#include "voxelrt.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define RUNS 5
#define TRY(call)                                                                                                      \
    if ((call) != VOXELRT_OK)                                                                                          \
        return fprintf(stderr, "%s\n", voxelrt_error_message(error)), 1;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
static atomic_long allocations;

void *malloc(size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}
void *realloc(void *old, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(old, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, size);
}

static voxelrt_tensor allocate(const voxelrt_io_info *io, size_t *count) {
    voxelrt_tensor tensor = {.struct_size = sizeof tensor, .dtype = io->dtype, .rank = io->rank};
    *count = 1;
    for (int axis = io->rank - 1; axis >= 0; *count *= (size_t)io->dims[axis--])
        tensor.dims[axis] = io->dims[axis], tensor.strides[axis] = (int64_t)*count;
    tensor.data = malloc(*count * sizeof(float));
    memset(tensor.data, 0, *count * sizeof(float));
    return tensor;
}

static long faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

int main(int argc, char **argv) {
    voxelrt_error *error = NULL;
    voxelrt_plan *plan;
    voxelrt_pool *pool;
    voxelrt_context *context;
    voxelrt_io_info in = {.struct_size = sizeof in}, out = {.struct_size = sizeof out};
    size_t read, written;
    TRY(voxelrt_plan_open(argc == 3 ? argv[1] : "", NULL, &plan, &error))
    TRY(voxelrt_pool_create(2, &pool, &error))
    TRY(voxelrt_context_create(plan, pool, NULL, &context, &error))
    TRY(voxelrt_plan_input(plan, 0, 0, &in, &error))
    TRY(voxelrt_plan_output(plan, 0, 0, &out, &error))
    voxelrt_tensor x = allocate(&in, &read), y = allocate(&out, &written);
    FILE *source = fopen(argv[2], "rb");
    if (!source || fread(x.data, sizeof(float), read, source) != read)
        return fprintf(stderr, "cannot read the input\n"), 1;
    TRY(voxelrt_run(context, &x, 1, &y, 1, NULL, &error))
    const long before = atomic_load(&allocations);
    long least = LONG_MAX;
    for (int i = 0; i < RUNS; ++i) {
        const long start = faults();
        TRY(voxelrt_run(context, &x, 1, &y, 1, NULL, &error))
        const long taken = faults() - start;
        least = taken < least ? taken : least;
    }
    printf("%ld allocations in %d runs, %ld page faults in the least of them, %llu bytes\n",
           atomic_load(&allocations) - before, RUNS, least, (unsigned long long)voxelrt_context_bytes(context));
    voxelrt_context_release(context), voxelrt_pool_release(pool), voxelrt_plan_release(plan);
    return 0;
}
