// CRC-32C (Castagnoli, RFC 3720 appendix B.4): the checksum of plan files.
#include "runtime.h"

#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace {

struct ByteTable {
    uint32_t value[256];
    ByteTable() {
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t c = i;
            for (int k = 0; k < 8; ++k)
                c = (c >> 1) ^ (0x82F63B78u & (0u - (c & 1)));
            value[i] = c;
        }
    }
};

uint32_t portable(uint32_t crc, const unsigned char *p, size_t n) {
    static const ByteTable table;
    while (n--)
        crc = table.value[(crc ^ *p++) & 0xFF] ^ (crc >> 8);
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t one_lane(uint32_t crc, const unsigned char *p, size_t n) {
    uint64_t wide = crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        std::memcpy(&word, p, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = static_cast<uint32_t>(wide);
    while (n--)
        crc = _mm_crc32_u8(crc, *p++);
    return crc;
}

constexpr size_t kLane = 4096;

// What a lane of zeros makes of a register: linear in its bits, so a table for each of its bytes will do.
struct PastLane {
    uint32_t value[4][256];
    PastLane() {
        static const unsigned char zeros[kLane] = {};
        for (int byte = 0; byte < 4; ++byte) {
            value[byte][0] = 0;
            for (int bit = 0; bit < 8; ++bit) {
                const uint32_t moved = one_lane(1u << (8 * byte + bit), zeros, kLane);
                for (int low = 0; low < 1 << bit; ++low)
                    value[byte][(1 << bit) + low] = moved ^ value[byte][low];
            }
        }
    }
    uint32_t operator()(uint32_t crc) const {
        return value[0][crc & 0xFF] ^ value[1][crc >> 8 & 0xFF] ^ value[2][crc >> 16 & 0xFF] ^ value[3][crc >> 24];
    }
};

// Three lanes at a time: the instruction takes three cycles and could begin in every one.
__attribute__((target("sse4.2"))) uint32_t with_instruction(uint32_t crc, const unsigned char *p, size_t n) {
    if (n >= 64 * kLane) {
        static const PastLane past_lane;
        for (; n >= 3 * kLane; n -= 3 * kLane, p += 3 * kLane) {
            uint64_t a = crc, b = 0, c = 0;
            for (size_t i = 0; i < kLane; i += 8) {
                uint64_t words[3];
                std::memcpy(&words[0], p + i, 8);
                std::memcpy(&words[1], p + kLane + i, 8);
                std::memcpy(&words[2], p + 2 * kLane + i, 8);
                a = _mm_crc32_u64(a, words[0]);
                b = _mm_crc32_u64(b, words[1]);
                c = _mm_crc32_u64(c, words[2]);
            }
            const uint32_t two = past_lane(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
            crc = past_lane(two) ^ static_cast<uint32_t>(c);
        }
    }
    return one_lane(crc, p, n);
}
#endif

// The product of two polynomials over GF(2) modulo Castagnoli's, the highest power in the lowest bit.
uint32_t product(uint32_t a, uint32_t b) {
    uint32_t sum = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit)
            sum ^= b;
        b = (b >> 1) ^ (0x82F63B78u & (0u - (b & 1)));
    }
    return sum;
}

} // namespace

uint32_t voxelrt::crc32c_joined(uint32_t first, uint32_t second, uint64_t second_bytes) {
    uint32_t power = 1u << 23, moved = first; // x to the 8th: what a byte behind does to a checksum
    for (; second_bytes; second_bytes >>= 1, power = product(power, power))
        if (second_bytes & 1)
            moved = product(moved, power);
    return moved ^ second;
}

extern "C" uint32_t voxelrt_crc32c(uint32_t seed, const void *data, size_t bytes) {
    const unsigned char *p = static_cast<const unsigned char *>(data);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~with_instruction(~seed, p, bytes);
#endif
    return ~portable(~seed, p, bytes);
}
