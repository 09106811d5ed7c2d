// CRC-32C (Castagnoli, RFC 3720 appendix B.4): the checksum of plan files.
#include "voxelrt.h"

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
__attribute__((target("sse4.2"))) uint32_t with_instruction(uint32_t crc, const unsigned char *p, size_t n) {
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
#endif

} // namespace

extern "C" uint32_t voxelrt_crc32c(uint32_t seed, const void *data, size_t bytes) {
    const unsigned char *p = static_cast<const unsigned char *>(data);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~with_instruction(~seed, p, bytes);
#endif
    return ~portable(~seed, p, bytes);
}
