// The float dtypes one element at a time, for kernels with a template instance a dtype.
#pragma once

#include "elements.h"

namespace voxelrt::VOXELRT_ISA {

// What a dtype is computed in: double for itself, float for all others (8-bit integers too, exactly).
template <class T> struct Computed {
    using type = float;
};
template <> struct Computed<double> {
    using type = double;
};

template <class A, class T> VOXELRT_INLINE A get(T value) {
    return static_cast<A>(Codec<T>::read(value));
}
template <class T, class A> VOXELRT_INLINE T put(A value) {
    return Codec<T>::write(static_cast<NaturalOf<T>>(value));
}

// Call body(T()) with the storage type of a float dtype; false for another dtype.
template <class F> static inline bool with_float(int dtype, F &&body) {
    switch (dtype) {
    case VOXELRT_F32:
        body(float());
        return true;
    case VOXELRT_F64:
        body(double());
        return true;
    case VOXELRT_F16:
        body(Half());
        return true;
    case VOXELRT_BF16:
        body(BFloat());
        return true;
    default:
        return false;
    }
}

} // namespace voxelrt::VOXELRT_ISA
