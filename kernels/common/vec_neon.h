// vec.h with NEON: a block is four registers. Included by vec.h alone.
#pragma once

namespace voxelrt::VOXELRT_ISA {

constexpr int kVectorRegisters = 32;
constexpr int kRegistersPerBlock = 4;

struct vf16 {
    float32x4_t v[4];
};
struct vm16 {
    uint32x4_t v[4];
};

// Write `result` with the expression of i for each of the four quarters.
#define VOXELRT_QUARTERS(Type, expression)                                                                             \
    Type result;                                                                                                       \
    for (int i = 0; i < 4; ++i)                                                                                        \
        result.v[i] = (expression);                                                                                    \
    return result;

static inline vm16 first_lanes(int n) {
    const uint32_t lanes[4] = {0, 1, 2, 3};
    VOXELRT_QUARTERS(vm16, vcltq_s32(vreinterpretq_s32_u32(vld1q_u32(lanes)), vdupq_n_s32(n - 4 * i)))
}
static inline vf16 zero() {
    VOXELRT_QUARTERS(vf16, vdupq_n_f32(0.0f))
}
static inline vf16 broadcast(float x) {
    VOXELRT_QUARTERS(vf16, vdupq_n_f32(x))
}
static inline vf16 load(const float *p) {
    VOXELRT_QUARTERS(vf16, vld1q_f32(p + 4 * i))
}
static inline void store(float *p, vf16 a) {
    for (int i = 0; i < 4; ++i)
        vst1q_f32(p + 4 * i, a.v[i]);
}
// The first n lanes; the others read as zero or stay unwritten. 0 <= n <= 16.
static inline vf16 load_first(const float *p, int n) {
    float lanes[16] = {};
    for (int i = 0; i < n; ++i)
        lanes[i] = p[i];
    return load(lanes);
}
static inline vf16 gather(const float *p, const int32_t *at) {
    float lane[16];
    for (int i = 0; i < 16; ++i)
        lane[i] = p[at[i]];
    return load(lane);
}
static inline vf16 gather_near(const float *p, const int32_t *at) {
    return gather(p, at);
}
static inline void store_first(float *p, vf16 a, int n) {
    float lanes[16];
    store(lanes, a);
    for (int i = 0; i < n; ++i)
        p[i] = lanes[i];
}
// NEON has no such store; an ordinary one.
static inline void stream(float *p, vf16 a) {
    store(p, a);
}
static inline void stream_fence() {}

static inline vf16 operator+(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vf16, vaddq_f32(a.v[i], b.v[i]))
}
static inline vf16 operator-(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vf16, vsubq_f32(a.v[i], b.v[i]))
}
static inline vf16 operator*(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vf16, vmulq_f32(a.v[i], b.v[i]))
}
static inline vf16 operator/(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vf16, vdivq_f32(a.v[i], b.v[i]))
}
// a * b + c with one rounding.
static inline vf16 fma(vf16 a, vf16 b, vf16 c) {
    VOXELRT_QUARTERS(vf16, vfmaq_f32(c.v[i], a.v[i], b.v[i]))
}
// min and max: a NaN stays (on x86 only the second argument's does).
static inline vf16 min(vf16 bound, vf16 x) {
    VOXELRT_QUARTERS(vf16, vminq_f32(bound.v[i], x.v[i]))
}
static inline vf16 max(vf16 bound, vf16 x) {
    VOXELRT_QUARTERS(vf16, vmaxq_f32(bound.v[i], x.v[i]))
}
static inline vf16 abs(vf16 a) {
    VOXELRT_QUARTERS(vf16, vabsq_f32(a.v[i]))
}
static inline vf16 sqrt(vf16 a) {
    VOXELRT_QUARTERS(vf16, vsqrtq_f32(a.v[i]))
}
static inline vf16 round(vf16 a) {
    VOXELRT_QUARTERS(vf16, vrndnq_f32(a.v[i]))
}
static inline vf16 floor(vf16 a) {
    VOXELRT_QUARTERS(vf16, vrndmq_f32(a.v[i]))
}
static inline vf16 power_of_two(vf16 n) { // 2^n for whole n in [-126, 127]
    VOXELRT_QUARTERS(vf16, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23)))
}
static inline vf16 times_power_of_two(vf16 a, vf16 n) { // a 2^n for whole n <= 0; below 2^-126 some tiny number
    return a * power_of_two(max(broadcast(-126.0f), n));
}
static inline vm16 operator<(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vm16, vcltq_f32(a.v[i], b.v[i]))
}
static inline vm16 operator>=(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vm16, vcgeq_f32(a.v[i], b.v[i]))
}
static inline vm16 is_nan(vf16 a) {
    VOXELRT_QUARTERS(vm16, vmvnq_u32(vceqq_f32(a.v[i], a.v[i])))
}
static inline vf16 select(vm16 m, vf16 yes, vf16 no) {
    VOXELRT_QUARTERS(vf16, vbslq_f32(m.v[i], yes.v[i], no.v[i]))
}
static inline bool any(vm16 m) {
    return vmaxvq_u32(vorrq_u32(vorrq_u32(m.v[0], m.v[1]), vorrq_u32(m.v[2], m.v[3]))) != 0;
}
static inline vm16 operator|(vm16 a, vm16 b) {
    VOXELRT_QUARTERS(vm16, vorrq_u32(a.v[i], b.v[i]))
}
static inline vm16 operator~(vm16 a) {
    VOXELRT_QUARTERS(vm16, vmvnq_u32(a.v[i]))
}
static inline vm16 operator&(vm16 a, vm16 b) {
    VOXELRT_QUARTERS(vm16, vandq_u32(a.v[i], b.v[i]))
}

struct vi16 { // sixteen 32-bit whole numbers
    int32x4_t v[4];
};
static inline vi16 to_whole(vf16 a) { // of whole values that fit
    VOXELRT_QUARTERS(vi16, vcvtq_s32_f32(a.v[i]))
}
static inline vi16 broadcast_whole(int32_t x) {
    VOXELRT_QUARTERS(vi16, vdupq_n_s32(x))
}
static inline void store_whole(int32_t *p, vi16 a) {
    for (int i = 0; i < 4; ++i)
        vst1q_s32(p + 4 * i, a.v[i]);
}
static inline vi16 operator+(vi16 a, vi16 b) {
    VOXELRT_QUARTERS(vi16, vaddq_s32(a.v[i], b.v[i]))
}
static inline vi16 operator*(vi16 a, vi16 b) {
    VOXELRT_QUARTERS(vi16, vmulq_s32(a.v[i], b.v[i]))
}
#undef VOXELRT_QUARTERS

} // namespace voxelrt::VOXELRT_ISA
