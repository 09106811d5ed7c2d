// resample_argmax: one thread a label. The factors of the rows it is read from (their share over the windows' weights)
// are worked out once for all classes; classes are read one after the other and only the best so far is kept.
#include "cuda.cuh"

namespace {

struct Plane {
    const float *sums, *counts;
    long long channel, row, counts_row;
};

struct Taps {
    int at[2];
    float share[2]; // one of no share is not looked at
};

__device__ Taps taps_of(const int *at, const float *weights, long long count, long long i) {
    const float upper = weights[i];
    return {{at[i], at[count + i]}, {1.0f - upper, upper}};
}

__device__ float rounded_to_half(float x) {
    return __half2float(__float2half_rn(x));
}

// The mean logit of a class at a column, from up to four rows.
__device__ float mixed(const Plane *plane, const Taps &rows, const float (*factor)[2], long long c, int x, int column) {
    float sum = 0.0f;
    for (int p = 0; p < 2; ++p)
        for (int r = 0; r < 2; ++r)
            if (factor[2 * p + r][column] != 0.0f)
                sum = fmaf(plane[p].sums[c * plane[p].channel + rows.at[r] * plane[p].row + x],
                           factor[2 * p + r][column], sum);
    return sum;
}

template <typename Label>
__device__ void decide(Label *out, const Plane *plane, const int *row_at, const float *row_weights,
                       const int *column_at, const float *column_weights, const int *values, long long classes,
                       long long rows, long long columns, float weight, int regions, int half) {
    const long long count = rows * columns;
    for (long long i = voxelrt::global_thread(); i < count; i += voxelrt::global_threads()) {
        const long long y = i / columns, x = i % columns;
        const Taps along_y = taps_of(row_at, row_weights, rows, y);
        const Taps along_x = taps_of(column_at, column_weights, columns, x);
        float factor[4][2];
        for (int p = 0; p < 2; ++p)
            for (int r = 0; r < 2; ++r)
                for (int column = 0; column < 2; ++column) {
                    const float share = (p ? weight : 1.0f - weight) * along_y.share[r];
                    const bool read = share != 0.0f && along_x.share[column] != 0.0f;
                    const long long at = along_y.at[r] * plane[p].counts_row + along_x.at[column];
                    factor[2 * p + r][column] = read ? share / plane[p].counts[at] : 0.0f;
                }
        float best = 0.0f;
        int label = regions ? 0 : values[0];
        for (long long c = 0; c < classes; ++c) {
            float logit = 0.0f;
            for (int column = 0; column < 2; ++column)
                if (along_x.share[column] != 0.0f)
                    logit = fmaf(mixed(plane, along_y, factor, c, along_x.at[column], column), along_x.share[column],
                                 logit);
            if (half)
                logit = rounded_to_half(logit);
            const bool taken = regions ? logit > 0.0f : c == 0 || logit > best;
            if (taken) {
                best = logit;
                label = values[c];
            }
        }
        out[i] = (Label)label;
    }
}

} // namespace

#define VOXELRT_RESAMPLE_ARGMAX(suffix, Label)                                                                         \
    extern "C" __global__ void __launch_bounds__(256) voxelrt_resample_argmax_##suffix(                                \
        Label *out, const float *lower, const float *upper, const float *lower_counts, const float *upper_counts,      \
        const int *row_at, const float *row_weights, const int *column_at, const float *column_weights,                \
        const int *values, long long classes, long long rows, long long columns, long long lower_c, long long lower_y, \
        long long upper_c, long long upper_y, long long lower_counts_y, long long upper_counts_y, float weight,        \
        int regions, int half) {                                                                                       \
        const Plane plane[2] = {{lower, lower_counts, lower_c, lower_y, lower_counts_y},                               \
                                {upper, upper_counts, upper_c, upper_y, upper_counts_y}};                              \
        decide(out, plane, row_at, row_weights, column_at, column_weights, values, classes, rows, columns, weight,     \
               regions, half);                                                                                         \
    }

VOXELRT_RESAMPLE_ARGMAX(u8, unsigned char)
VOXELRT_RESAMPLE_ARGMAX(u16, unsigned short)
