/* A plan without Python: open it, run it on a file of float32, write the result as a file of float32.
 * Usage: native_example PLAN.vxp INPUT.f32 OUTPUT.f32 */
#include "voxelrt.h"

#include <stdio.h>
#include <stdlib.h>

#define TRY(call)                                                                                                      \
    if ((call) != VOXELRT_OK) {                                                                                        \
        fprintf(stderr, "%s\n", voxelrt_error_message(error));                                                         \
        return 1;                                                                                                      \
    }

static voxelrt_tensor allocate(const voxelrt_io_info *info) {
    voxelrt_tensor tensor = {sizeof tensor, info->dtype, VOXELRT_LINEAR, info->rank, 0, NULL, {0}, {0}};
    int64_t count = 1;
    for (int axis = info->rank - 1; axis >= 0; --axis) {
        tensor.dims[axis] = info->dims[axis];
        tensor.strides[axis] = count;
        count *= info->dims[axis];
    }
    tensor.data = malloc((size_t)count * sizeof(float));
    return tensor;
}

int main(int argc, char **argv) {
    voxelrt_error *error = NULL;
    voxelrt_plan *plan = NULL;
    voxelrt_pool *pool = NULL;
    voxelrt_context *context = NULL;
    voxelrt_io_info in = {.struct_size = sizeof in}, out = {.struct_size = sizeof out};
    if (argc != 4)
        return 2;
    TRY(voxelrt_plan_open(argv[1], NULL, &plan, &error))
    TRY(voxelrt_pool_create(2, &pool, &error))
    TRY(voxelrt_context_create(plan, pool, NULL, &context, &error))
    TRY(voxelrt_plan_input(plan, 0, 0, &in, &error))
    TRY(voxelrt_plan_output(plan, 0, 0, &out, &error))
    voxelrt_tensor input = allocate(&in), output = allocate(&out);
    const size_t bytes = (size_t)input.dims[0] * (size_t)input.strides[0] * sizeof(float);
    FILE *file = fopen(argv[2], "rb");
    if (!file || !input.data || !output.data || fread(input.data, 1, bytes, file) != bytes)
        return 3;
    fclose(file);
    TRY(voxelrt_run(context, &input, 1, &output, 1, NULL, &error))
    file = fopen(argv[3], "wb");
    if (!file || fwrite(output.data, sizeof(float), (size_t)(output.dims[0] * output.strides[0]), file) == 0)
        return 3;
    printf("ran %s: input %s, output %s\n", voxelrt_isa(&error), in.name, out.name);
    free(input.data), free(output.data);
    voxelrt_context_release(context), voxelrt_pool_release(pool), voxelrt_plan_release(plan);
    return fclose(file);
}
