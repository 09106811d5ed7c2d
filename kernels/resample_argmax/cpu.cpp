// resample_argmax: one plane of labels from two planes of stitched logits. A task is a row of the answer. For it, the
// four rows of logits that a class is read from are mixed into one (which divides by the sums of weights on the way),
// the mixed row is read at the answer's columns, and the largest class so far is kept beside its value; two classes at
// a time. With a head the planes are of features: their mixed rows are read once, and the classes are products of what
// was read.
#include "kernel.h"

#include "round_half.h"
#include "vec.h"
#include <algorithm>
#include <initializer_list>
#include <utility>

namespace voxelrt::VOXELRT_ISA {
namespace {

// weight: of the upper plane. regions: no argmax, but of the classes above zero the last one's value. half: resampled
// logits are rounded to half precision before they are compared.
#define RESAMPLE_ARGMAX_PARAMS(S, A) S(f32, weight) S(i32, regions) S(i32, half)
VOXELRT_PARAMS(ResampleArgmaxParams, RESAMPLE_ARGMAX_PARAMS)

enum Input {
    kLower,
    kUpper,
    kLowerCounts,
    kUpperCounts,
    kRows,
    kRowWeights,
    kColumns,
    kColumnWeights,
    kValues,
    kHead, // absent, or (classes, features + 1), the bias last: then the planes are of features
    kInputs
};

int64_t rounded(int64_t count) {
    return (count + 15) / 16 * 16;
}

// Classes that are mixed and compared together: the factors, the places and the best so far are loaded once for both.
constexpr int kTogether = 2;
constexpr int kClasses = 4;   // that are products of features together: what keeps the multipliers busy
constexpr int64_t kNear = 32; // places of sixteen columns, for a permutation in place of a gather

// Rows that are mixed before any is looked at, and floats for sixteen columns of each.
int64_t mixed_rows(const Step &step) {
    return step.in[kHead].present() ? step.in[kLower].dims[0] : kTogether;
}

// Of a thread: four rows of factors and the mixed rows, as wide as the logits; the best value and its label; the places
// of the columns within their block, and where each block begins; sixteen columns of features.
int64_t row_floats(const Step &step) {
    const int64_t wide = rounded(step.in[kLower].dims[2]) + kNear, columns = rounded(step.out[0].dims[1]);
    return (4 + mixed_rows(step)) * wide + 4 * columns + rounded(columns / 16) + 16 * mixed_rows(step);
}

uint64_t scratch(const Step &step, uint32_t threads) {
    return static_cast<uint64_t>(row_floats(step)) * sizeof(float) * threads;
}

bool plain(const Tensor &t, int dtype, int rank) {
    return t.present() && t.dtype == dtype && t.rank == rank && t.layout == VOXELRT_LINEAR && !t.pending();
}

Message check_table(const Tensor &at, const Tensor &weights, int64_t count, int64_t size) {
    if (!plain(at, VOXELRT_I32, 2) || !plain(weights, VOXELRT_F32, 1) || !at.contiguous() || !weights.contiguous() ||
        at.dims[0] != 2 || at.dims[1] != count || weights.dims[0] != count)
        return "takes tables of int32 (2, count) and float32 (count)";
    return size > INT32_MAX ? "takes planes of less than 2^31 rows and columns" : nullptr;
}

Message check(const Step &step) {
    if (step.inputs != kInputs || step.outputs != 1)
        return fail("takes ten inputs and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &lower = step.in[kLower], &upper = step.in[kUpper], &out = step.out[0];
    if (!plain(lower, VOXELRT_F32, 3) || !plain(upper, VOXELRT_F32, 3))
        return "takes two planes of float32 logits (C, Y, X)";
    for (const Tensor *counts : {&step.in[kLowerCounts], &step.in[kUpperCounts]})
        if (!plain(*counts, VOXELRT_F32, 2) || counts->dims[0] != lower.dims[1] || counts->dims[1] != lower.dims[2] ||
            (counts->strides[1] != 1 && counts->dims[1] > 1))
            return "takes the sums of weights (Y, X) of both planes";
    for (int i = 0; i < 3; ++i)
        if (upper.dims[i] != lower.dims[i])
            return fail("axis %d of the planes differs", i);
    if (lower.dims[2] > 1 && (lower.strides[2] != 1 || upper.strides[2] != 1))
        return "takes rows without gaps";
    if (out.rank != 2 || (out.dtype != VOXELRT_U8 && out.dtype != VOXELRT_U16) || !out.contiguous())
        return "gives labels (Y, X) of uint8 or uint16 without gaps";
    const Tensor &values = step.in[kValues], &head = step.in[kHead];
    if (head.present() && (!plain(head, VOXELRT_F32, 2) || !head.contiguous() || head.dims[1] != lower.dims[0] + 1))
        return "takes a head of float32 (classes, features + 1)";
    const int64_t classes = head.present() ? head.dims[0] : lower.dims[0];
    if (!plain(values, VOXELRT_I32, 1) || !values.contiguous() || values.dims[0] != classes)
        return "takes one int32 value for each class";
    if (classes > 65536)
        return "takes at most 65536 classes"; // a label is counted in a float
    if (Message message = check_table(step.in[kRows], step.in[kRowWeights], out.dims[0], lower.dims[1]))
        return message;
    return check_table(step.in[kColumns], step.in[kColumnWeights], out.dims[1], lower.dims[2]);
}

// What the tables point at is data, and is looked at before anything is read by it.
Message check_places(const Tensor &at, int64_t size) {
    const int32_t *places = at.as<int32_t>();
    for (int64_t i = 0; i < 2 * at.dims[1]; ++i)
        if (places[i] < 0 || places[i] >= size)
            return fail("place %lld is outside an axis of %lld", static_cast<long long>(places[i]),
                        static_cast<long long>(size));
    return nullptr;
}

struct Job {
    const Step &step;
    int64_t channels, wide, columns; // channels: classes, or features
    bool same_columns;               // every column is read where it lies
    bool near;                       // those of sixteen columns lie within kNear
    bool regions, half;
    float weight;
};

// The rows that one row of the answer is made of: planes, offsets, factors. Those of no weight are left out, so that
// what is not read cannot matter.
struct Sources {
    const Tensor *plane[4];
    int64_t offset[4];
    const float *factor[4];
    int count = 0;
};

Sources sources_of(const Job &job, int64_t y, float *factors) {
    const Step &step = job.step;
    const int32_t *at = step.in[kRows].as<int32_t>();
    const float along = step.in[kRowWeights].as<float>()[y];
    const int64_t row[2] = {at[y], at[step.out[0].dims[0] + y]};
    Sources made;
    for (int p = 0; p < 2; ++p)
        for (int r = 0; r < 2; ++r) {
            const float share = (p ? job.weight : 1 - job.weight) * (r ? along : 1 - along);
            if (share == 0)
                continue;
            const Tensor &counts = step.in[kLowerCounts + p];
            const float *count = counts.as<float>() + row[r] * counts.strides[0];
            float *factor = factors + made.count * (rounded(job.wide) + kNear);
            for (int64_t x = 0; x < job.wide; ++x)
                factor[x] = share / count[x];
            made.plane[made.count] = &step.in[kLower + p];
            made.offset[made.count] = row[r] * step.in[kLower + p].strides[1];
            made.factor[made.count++] = factor;
        }
    return made;
}

template <int Count, int Classes> void mix_rows(const Sources &from, int64_t c, int64_t wide, float *const *mixed) {
    const float *row[Classes][Count];
    for (int k = 0; k < Classes; ++k)
        for (int i = 0; i < Count; ++i)
            row[k][i] = from.plane[i]->as<float>() + (c + k) * from.plane[i]->strides[0] + from.offset[i];
    int64_t x = 0;
    for (; x + 16 <= wide; x += 16) {
        vf16 sum[Classes], factor = load(from.factor[0] + x);
        for (int k = 0; k < Classes; ++k)
            sum[k] = load(row[k][0] + x) * factor;
        for (int i = 1; i < Count; ++i) {
            factor = load(from.factor[i] + x);
            for (int k = 0; k < Classes; ++k)
                sum[k] = fma(load(row[k][i] + x), factor, sum[k]);
        }
        for (int k = 0; k < Classes; ++k)
            store(mixed[k] + x, sum[k]);
    }
    if (const int rest = static_cast<int>(wide - x))
        for (int k = 0; k < Classes; ++k) {
            vf16 sum = load_first(row[k][0] + x, rest) * load_first(from.factor[0] + x, rest);
            for (int i = 1; i < Count; ++i)
                sum = fma(load_first(row[k][i] + x, rest), load_first(from.factor[i] + x, rest), sum);
            store_first(mixed[k] + x, sum, rest);
        }
}

template <int Classes> void mix(const Sources &from, int64_t c, int64_t wide, float *const *mixed) {
    switch (from.count) {
    case 1:
        return mix_rows<1, Classes>(from, c, wide, mixed);
    case 2:
        return mix_rows<2, Classes>(from, c, wide, mixed);
    case 3:
        return mix_rows<3, Classes>(from, c, wide, mixed);
    default:
        return mix_rows<4, Classes>(from, c, wide, mixed);
    }
}

// Where the columns of a row are read: within their block of sixteen, and where the block begins; or from the row.
struct Places {
    const int32_t *low, *high, *begin;
};

Places places_of(const Job &job, int32_t *memory) {
    const int32_t *at = job.step.in[kColumns].as<int32_t>();
    if (!job.near || job.same_columns)
        return {at, at + job.columns, nullptr};
    const int64_t columns = rounded(job.columns);
    int32_t *low = memory, *high = low + columns, *begin = high + columns;
    for (int64_t x = 0; x + 16 <= job.columns; x += 16) {
        int32_t least = at[x];
        for (int i = 0; i < 16; ++i)
            least = std::min({least, at[x + i], at[job.columns + x + i]});
        begin[x / 16] = least;
        for (int i = 0; i < 16; ++i) {
            low[x + i] = at[x + i] - least;
            high[x + i] = at[job.columns + x + i] - least;
        }
    }
    return {low, high, begin};
}

bool all_near(const Job &job) {
    const int32_t *low = job.step.in[kColumns].as<int32_t>(), *high = low + job.columns;
    for (int64_t x = 0; x + 16 <= job.columns; x += 16) {
        const auto [a, b] = std::minmax_element(low + x, low + x + 16);
        const auto [c, d] = std::minmax_element(high + x, high + x + 16);
        if (std::max(*b, *d) - std::min(*a, *c) >= kNear)
            return false;
    }
    return true;
}

// Sixteen columns of a mixed row. The last ones of a row that is no multiple of sixteen are read by the scalar form.
vf16 columns_of(const Job &job, const Places &places, const float *mixed, int64_t x, int rest) {
    if (job.same_columns)
        return rest == 16 ? load(mixed + x) : load_first(mixed + x, rest);
    const float *weight = job.step.in[kColumnWeights].as<float>() + x;
    if (rest == 16) {
        const int32_t *low = places.low + x, *high = places.high + x;
        const float *from = mixed + (places.begin ? places.begin[x / 16] : 0);
        const vf16 a = places.begin ? gather_near(from, low) : gather(mixed, low);
        const vf16 b = places.begin ? gather_near(from, high) : gather(mixed, high), w = load(weight);
        return fma(b, w, a * (broadcast(1) - w));
    }
    const int32_t *low = job.step.in[kColumns].as<int32_t>() + x, *high = low + job.columns;
    float lane[16] = {};
    for (int i = 0; i < rest; ++i)
        lane[i] = mixed[low[i]] * (1 - weight[i]) + mixed[high[i]] * weight[i];
    return load(lane);
}

vf16 halved(vf16 values) {
    float lane[16];
    store(lane, values);
    for (float &value : lane)
        value = round_half(value);
    return load(lane);
}

template <class Label> void write_row(const float *labels, int64_t count, Label *out) {
    for (int64_t x = 0; x < count; ++x)
        out[x] = static_cast<Label>(labels[x]);
}

// The best class so far of sixteen voxels, or the last one above zero.
struct Best {
    vf16 most = zero(), chosen = zero();

    void take(const Job &job, vf16 logit, bool first, int32_t label) {
        const vf16 value = broadcast(static_cast<float>(label)), here = job.half ? halved(logit) : logit;
        if (job.regions) {
            chosen = select(zero() < here, value, chosen);
        } else if (first) {
            most = here;
            chosen = value;
        } else {
            const vm16 more = most < here;
            most = select(more, here, most);
            chosen = select(more, value, chosen);
        }
    }
};

// Classes from c on against the best so far.
template <int Classes>
void compare(const Job &job, const Places &places, float *const *mixed, int64_t c, float *best, float *label) {
    const int32_t *values = job.step.in[kValues].as<int32_t>();
    for (int64_t x = 0; x < job.columns; x += 16) {
        const int rest = job.columns - x < 16 ? static_cast<int>(job.columns - x) : 16;
        Best found;
        if (c) {
            found.most = load(best + x);
            found.chosen = load(label + x);
        }
        for (int k = 0; k < Classes; ++k)
            found.take(job, columns_of(job, places, mixed[k], x, rest), c + k == 0, values[c + k]);
        store(best + x, found.most);
        store(label + x, found.chosen);
    }
}

// Classes from c on of sixteen voxels' features.
template <int Classes> void take_classes(const Job &job, const float *features, int64_t c, Best &found) {
    const Tensor &head = job.step.in[kHead];
    const float *row = head.as<float>() + c * head.dims[1];
    const int32_t *values = job.step.in[kValues].as<int32_t>();
    vf16 sum[Classes];
    for (int k = 0; k < Classes; ++k)
        sum[k] = broadcast(row[k * head.dims[1] + job.channels]);
    for (int64_t f = 0; f < job.channels; ++f) {
        const vf16 feature = load(features + 16 * f);
        for (int k = 0; k < Classes; ++k)
            sum[k] = fma(broadcast(row[k * head.dims[1] + f]), feature, sum[k]);
    }
    for (int k = 0; k < Classes; ++k)
        found.take(job, sum[k], c + k == 0, values[c + k]);
}

// A row by the head: the features of sixteen columns, then all classes of them.
void decide_by_head(const Job &job, const Places &places, const float *mixed, int64_t wide, float *features,
                    float *label) {
    const int64_t classes = job.step.in[kHead].dims[0];
    for (int64_t x = 0; x < job.columns; x += 16) {
        const int rest = job.columns - x < 16 ? static_cast<int>(job.columns - x) : 16;
        for (int64_t f = 0; f < job.channels; ++f)
            store(features + 16 * f, columns_of(job, places, mixed + f * wide, x, rest));
        Best found;
        int64_t c = 0;
        for (; c + kClasses <= classes; c += kClasses)
            take_classes<kClasses>(job, features, c, found);
        for (; c < classes; ++c)
            take_classes<1>(job, features, c, found);
        store(label + x, found.chosen);
    }
}

void row(const Job &job, int64_t y, float *memory) {
    const int64_t wide = rounded(job.wide) + kNear, columns = rounded(job.columns);
    float *factors = memory, *rows = memory + 4 * wide, *best = rows + mixed_rows(job.step) * wide;
    float *label = best + columns, *kept = label + columns;
    const bool headed = job.step.in[kHead].present();
    const Sources from = sources_of(job, y, factors);
    const Places places = places_of(job, reinterpret_cast<int32_t *>(kept));
    int64_t c = 0;
    for (; c + kTogether <= job.channels; c += kTogether) {
        float *first = rows + (headed ? c * wide : 0), *const mixed[kTogether] = {first, first + wide};
        mix<kTogether>(from, c, job.wide, mixed);
        if (!headed)
            compare<kTogether>(job, places, mixed, c, best, label);
    }
    for (; c < job.channels; ++c) {
        float *const mixed[1] = {rows + (headed ? c * wide : 0)};
        mix<1>(from, c, job.wide, mixed);
        if (!headed)
            compare<1>(job, places, mixed, c, best, label);
    }
    if (headed)
        decide_by_head(job, places, rows, wide, kept + 2 * columns + rounded(columns / 16), label);
    const Tensor &out = job.step.out[0];
    if (out.dtype == VOXELRT_U8)
        write_row(label, job.columns, out.as<uint8_t>() + y * job.columns);
    else
        write_row(label, job.columns, out.as<uint16_t>() + y * job.columns);
}

Message run(const Step &step, const Env &env) {
    const Tensor &lower = step.in[kLower], &out = step.out[0];
    const ResampleArgmaxParams params = step.as<ResampleArgmaxParams>();
    if (out.count() == 0)
        return nullptr;
    if (lower.count() == 0)
        return "there are no logits to take labels from";
    for (auto [table, size] : {std::pair<int, int64_t>{kRows, lower.dims[1]}, {kColumns, lower.dims[2]}})
        if (Message message = check_places(step.in[table], size))
            return message;
    const int most = out.dtype == VOXELRT_U8 ? 255 : 65535;
    for (int64_t c = 0; c < step.in[kValues].dims[0]; ++c)
        if (step.in[kValues].as<int32_t>()[c] < 0 || step.in[kValues].as<int32_t>()[c] > most)
            return fail("a class has the value %d; the labels go from 0 to %d", step.in[kValues].as<int32_t>()[c],
                        most);
    Job job{step,  lower.dims[0],       lower.dims[2],    out.dims[1],  lower.dims[2] == out.dims[1],
            false, params.regions != 0, params.half != 0, params.weight};
    for (int64_t x = 0; x < job.columns && job.same_columns; ++x)
        job.same_columns = step.in[kColumns].as<int32_t>()[x] == x && step.in[kColumnWeights].as<float>()[x] == 0;
    job.near = all_near(job);
    const int64_t each = row_floats(step);
    env.parallel(out.dims[0], [&](int64_t y, uint32_t worker) {
        row(job, y, reinterpret_cast<float *>(env.scratch) + worker * each);
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(resample_argmax, {{"resample_argmax", 1, ResampleArgmaxParamsText, sizeof(ResampleArgmaxParams), check,
                                   run, scratch, nullptr, nullptr}})
