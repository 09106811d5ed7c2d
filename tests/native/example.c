/* A plan without Python: open it, run it on a file of float32, write the result as a file of float32.
 * Usage: native_example PLAN.vxp INPUT.f32 OUTPUT.f32 */
#include "voxelrt.h"

#include <stdio.h>
#include <stdlib.h>

#define TRY(call)                                                                                                      \
    if ((call) != VOXELRT_OK)                                                                                          \
        return fprintf(stderr, "%s\n", voxelrt_error_message(error)), 1;

static voxelrt_tensor allocate(const voxelrt_io_info *io, size_t *count) {
    voxelrt_tensor tensor = {.struct_size = sizeof tensor, .dtype = io->dtype, .rank = io->rank};
    *count = 1;
    for (int axis = io->rank - 1; axis >= 0; *count *= (size_t)io->dims[axis--])
        tensor.dims[axis] = io->dims[axis], tensor.strides[axis] = (int64_t)*count;
    tensor.data = malloc(*count * sizeof(float));
    return tensor;
}

int main(int argc, char **argv) {
    voxelrt_error *error = NULL;
    voxelrt_plan *plan;
    voxelrt_pool *pool;
    voxelrt_context *context;
    voxelrt_io_info in = {.struct_size = sizeof in}, out = {.struct_size = sizeof out};
    size_t read, written;
    TRY(voxelrt_plan_open(argc == 4 ? argv[1] : "", NULL, &plan, &error))
    TRY(voxelrt_pool_create(2, &pool, &error))
    TRY(voxelrt_context_create(plan, pool, NULL, &context, &error))
    TRY(voxelrt_plan_input(plan, 0, 0, &in, &error))
    TRY(voxelrt_plan_output(plan, 0, 0, &out, &error))
    voxelrt_tensor x = allocate(&in, &read), y = allocate(&out, &written);
    FILE *source = fopen(argv[2], "rb"), *target = fopen(argv[3], "wb");
    if (!source || !target || fread(x.data, sizeof(float), read, source) != read)
        return fprintf(stderr, "cannot read the input or open the output\n"), 1;
    TRY(voxelrt_run(context, &x, 1, &y, 1, NULL, &error))
    printf("ran on %s: %s -> %s\n", voxelrt_isa(NULL), in.name, out.name);
    const int failed = fwrite(y.data, sizeof(float), written, target) != written;
    voxelrt_context_release(context), voxelrt_pool_release(pool), voxelrt_plan_release(plan);
    free(x.data), free(y.data), fclose(source);
    return fclose(target) || failed;
}
