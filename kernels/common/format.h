// The plan file (.vxp) as it lies on disk and in memory: fixed little-endian structs, every offset checked before use.
//
//   FileHeader | SectionRecord[section_count] | sections, each aligned to 64 bytes (weights to 4096)
//
// A `compiled` section is a CompiledHeader followed by its tables; table offsets count from the section's start.
// docs/architecture.md tells how the parts belong together; engine/plan/schedule.py writes them.
#pragma once

#include <cstdint>

namespace voxelrt::format {

constexpr char kMagic[8] = {'V', 'O', 'X', 'E', 'L', 'R', 'T', '\x1a'};
constexpr uint32_t kMajor = 0;
constexpr uint32_t kMinor = 3; // 2: parts, GPU sections, guards of steps; 3: heads
constexpr uint32_t kMaxRank = 8;

enum SectionKind : uint32_t { kMeta = 1, kGraph = 2, kWeights = 3, kCompiled = 4, kPacked = 5, kIslands = 6 };

struct FileHeader {
    char magic[8];
    uint32_t major, minor;
    uint64_t file_bytes;
    uint64_t table_offset;
    uint32_t section_count;
    uint32_t crc; // CRC-32C of this header with crc = 0, then of the section table
    uint8_t reserved[24];
};

struct SectionRecord {
    uint32_t kind;
    uint32_t crc;
    char target[32]; // compiled, packed and island sections: the target's name, zero-padded
    uint64_t offset, bytes;
    uint8_t reserved[8];
};

struct Table {
    uint64_t offset; // from the section's start
    uint64_t count;
};

struct CompiledHeader {
    char library[16]; // version of the library that compiled it
    Table strings;    // bytes, each string ends in NUL; a string is named by its offset
    Table params;     // bytes
    Table names;      // uint32_t string offsets: provenance lists
    Table weights;    // WeightRecord
    Table operands;   // OperandRecord
    Table steps;      // StepRecord
    Table ios;        // IoRecord
    Table variants;   // VariantRecord
};

enum WeightForm : uint32_t { kRaw = 0, kPackedForm = 1, kPackOnOpen = 2 };

struct WeightRecord {
    uint32_t form;
    uint32_t kernel;  // string: whose packing; unused for raw
    uint32_t version; // of that kernel
    uint32_t params_bytes;
    uint64_t params_offset;
    uint64_t raw_offset, raw_bytes; // in the weights section
    uint64_t packed_offset;         // in the packed section, for the packed form
    uint64_t final_bytes;           // as the kernel sees it
    uint8_t dtype, rank;
    uint8_t reserved[6];
    int64_t dims[kMaxRank]; // of the raw tensor
};

enum OperandKind : uint8_t { kNone = 0, kArena = 1, kWeight = 2, kInput = 3, kOutput = 4 };
enum OperandFlag : uint32_t { kBatched = 1 }; // dims[0] is multiplied by the run's batch

struct OperandRecord {
    uint8_t kind, dtype, layout, rank;
    uint32_t slot;   // weight, input or output index
    uint64_t offset; // arena: of the buffer, for a batch of one; a context of capacity B places it at B times this
    uint64_t inner;  // bytes from the start of the buffer, weight, input or output; never scaled
    uint32_t flags;
    float pending_slope;
    int32_t pending_scale; // index of another operand of the same step (float32, (N, C)), or -1
    int32_t pending_shift;
    int64_t dims[kMaxRank];
    int64_t strides[kMaxRank]; // elements; blocked: N, channel block, Z, Y, X
};

struct StepRecord {
    uint32_t kernel; // string
    uint32_t version;
    uint64_t params_offset;
    uint32_t params_bytes;
    uint32_t first_operand;
    uint32_t inputs, outputs, extras; // extras: pending scales and shifts, then the guards
    uint32_t first_name, name_count;
    uint32_t guards; // how many of the last extras, bools, say whether the step runs, and what they must be: see Guards
    uint64_t flops, bytes; // of one batch item, for profiles
};

// A step in a branch that is taken at run time. The step runs if each guard has its value; they are read in order and
// no further than the first that has not, since a branch inside a branch decides nothing where the outer one is not
// taken. A library that does not know guards runs every step: what is not wanted is not selected behind the branches.
constexpr uint32_t kMostGuards = 8;
struct Guards {
    uint32_t count;  // low byte
    uint32_t wanted; // second byte: bit i is what guard i must be
    explicit Guards(uint32_t bits) : count(bits & 0xff), wanted(bits >> 8) {}
};

struct IoRecord {
    uint32_t name;
    uint8_t dtype, rank, batched, reserved;
    int64_t dims[kMaxRank];
};

struct VariantRecord {
    uint32_t first_io, inputs, outputs;
    uint32_t first_step, steps;
    uint32_t batch_min, batch_max;
    uint32_t reserved;
    uint64_t arena_bytes;
};

static_assert(sizeof(FileHeader) == 64);
static_assert(sizeof(SectionRecord) == 64);
static_assert(sizeof(CompiledHeader) == 144);
static_assert(sizeof(WeightRecord) == 128);
static_assert(sizeof(OperandRecord) == 168);
static_assert(sizeof(StepRecord) == 64);
static_assert(sizeof(IoRecord) == 72);
static_assert(sizeof(VariantRecord) == 40);

} // namespace voxelrt::format
