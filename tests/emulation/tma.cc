// tma.cc -- the tensor memory accelerator: tensor maps of three dimensions, tiles between global and shared memory, and
// bulk adds. CUDA Driver API, cuTensorMapEncodeTiled; PTX ISA, "cp.async.bulk.tensor".
#include "emulation/tma.h"
#include "emulation/emulation.h"
#include "emulation/include/emulated_hopper.h"
#include <deque>

namespace emulation
{
namespace
{
constexpr uint32_t map_mark = 0x7e45u;
struct Map {
    unsigned char *data;
    uint64_t dims[3], strides[2]; // elements; bytes
    uint32_t box[3], element, mark;
    bool is_swizzled;
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap), "the double's map is no longer than CUDA's");

struct Load {
    Map map;
    unsigned char *to;
    uint64_t *barrier;
    int at[3];
};
// Of one thread.
struct Bulk {
    std::deque<std::vector<std::function<void()>>> closed;
    std::vector<std::function<void()>> open;
};
struct Block {
    std::vector<Load> loads;
    std::vector<Bulk> bulk = std::vector<Bulk>(1024);
};
thread_local Block block;

Map read(const CUtensorMap *from)
{
    Map map;
    std::memcpy(&map, from, sizeof(map));
    if (map.mark != map_mark)
        fail("a copy by TMA without a tensor map");
    return map;
}

uint32_t box_bytes(const Map &map)
{
    return map.box[0] * map.box[1] * map.box[2] * map.element;
}

// Calls each(in global memory or nullptr outside of the tensor, in shared memory) for all elements of a box.
template <typename Each>
void walk(const Map &map, const int at[3], unsigned char *shared, const Each &each)
{
    const uint32_t count = map.box[0] * map.box[1] * map.box[2];
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t in_box[3] = {i % map.box[0], i / map.box[0] % map.box[1],
                                    i / map.box[0] / map.box[1]};
        bool is_inside = true;
        int64_t place[3];
        for (int dim = 0; dim < 3; dim++) {
            place[dim] = (int64_t)at[dim] + in_box[dim];
            is_inside &= place[dim] >= 0 && place[dim] < (int64_t)map.dims[dim];
        }
        unsigned char *global = nullptr;
        if (is_inside)
            global = map.data + place[0] * map.element + place[1] * (int64_t)map.strides[0] +
                     place[2] * (int64_t)map.strides[1];
        const uint64_t address = reinterpret_cast<uint64_t>(shared) + (uint64_t)i * map.element;
        each(global,
             reinterpret_cast<unsigned char *>(map.is_swizzled ? swizzled(address) : address));
    }
}

void check_panel(const Map &map, const void *panel)
{
    if (reinterpret_cast<uint64_t>(panel) % (map.is_swizzled ? 1024 : 128) != 0)
        fail("a tile of TMA at %llu bytes behind a multiple of 1024",
             reinterpret_cast<unsigned long long>(panel) % 1024);
}

void run_load(const Load &load)
{
    walk(load.map, load.at, load.to, [&load](const unsigned char *global, unsigned char *shared) {
        if (global != nullptr)
            std::memcpy(shared, global, load.map.element);
        else
            std::memset(shared, 0, load.map.element);
    });
    count_bytes(load.barrier, box_bytes(load.map));
}

CUresult encode(CUtensorMap *to, CUtensorMapDataType type, cuuint32_t rank, void *data,
                const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
                const cuuint32_t *steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
    Map map = {};
    map.data = static_cast<unsigned char *>(data);
    map.element = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 ? 2 : 4;
    map.mark = map_mark;
    map.is_swizzled = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
    bool is_valid = rank == 3 && reinterpret_cast<uint64_t>(data) % 16 == 0;
    for (int i = 0; i < 3; i++) {
        map.dims[i] = dims[i];
        map.box[i] = box[i];
        is_valid &= dims[i] > 0 && dims[i] <= (uint64_t)1 << 32 && box[i] > 0 && box[i] <= 256 &&
                    steps[i] == 1;
    }
    for (int i = 0; i < 2; i++) {
        map.strides[i] = strides[i];
        is_valid &= strides[i] % 16 == 0 && strides[i] > 0 && strides[i] < (uint64_t)1 << 40;
    }
    const uint32_t row_bytes = map.box[0] * map.element;
    is_valid &= row_bytes % 16 == 0 && (!map.is_swizzled || row_bytes == 128); // 64 would do, too
    std::memcpy(to, &map, sizeof(map));
    return is_valid ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
} // namespace

void start_load(const CUtensorMap *map, void *panel, uint64_t *barrier, int col, int row,
                int sequence)
{
    const Load load = {
        read(map), static_cast<unsigned char *>(panel), barrier, {col, row, sequence}};
    check_panel(load.map, panel);
    std::memset(panel, settings().fill, box_bytes(load.map));
    block.loads.push_back(load);
}

void run_loads(const uint64_t *barrier)
{
    std::vector<Load> others;
    for (const Load &load : block.loads) {
        if (load.barrier == barrier)
            run_load(load);
        else
            others.push_back(load);
    }
    block.loads = others;
}

void start_store(const CUtensorMap *to, const void *panel, int col, int row, int sequence)
{
    const Map map = read(to);
    check_panel(map, panel);
    // walk hands over shared memory that it does not write
    unsigned char *from = static_cast<unsigned char *>(const_cast<void *>(panel));
    block.bulk[thread_number()].open.push_back([map, from, col, row, sequence] {
        const int at[3] = {col, row, sequence};
        walk(map, at, from, [&map](unsigned char *global, const unsigned char *shared) {
            if (global != nullptr)
                std::memcpy(global, shared, map.element);
        });
    });
}

void start_floats(float *to, const float *from, uint32_t bytes, bool adds)
{
    if ((reinterpret_cast<uint64_t>(to) | reinterpret_cast<uint64_t>(from) | bytes) % 16 != 0)
        fail("a bulk store or add that is not 16-byte aligned");
    block.bulk[thread_number()].open.push_back([to, from, bytes, adds] {
        for (uint32_t i = 0; i < bytes / sizeof(float); i++)
            to[i] = adds ? to[i] + from[i] : from[i];
    });
}

void commit_bulk()
{
    Bulk &mine = block.bulk[thread_number()];
    mine.closed.push_back(std::move(mine.open));
    mine.open.clear();
}

void wait_for_bulk(int groups_left)
{
    Bulk &mine = block.bulk[thread_number()];
    while (mine.closed.size() > (size_t)groups_left) {
        for (const std::function<void()> &one : mine.closed.front())
            one();
        mine.closed.pop_front();
    }
}

void end_bulk(unsigned num_threads)
{
    bool is_left = !block.loads.empty();
    for (unsigned i = 0; i < num_threads; i++) {
        for (const std::vector<std::function<void()>> &group : block.bulk[i].closed)
            is_left |= !group.empty();
        is_left |= !block.bulk[i].open.empty();
        block.bulk[i] = {};
    }
    block.loads.clear();
    if (is_left)
        fail("a block ended with a bulk copy that nothing waited for");
}
} // namespace emulation

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult *result)
{
    const bool is_known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
    *function = is_known ? reinterpret_cast<void *>(emulation::encode) : nullptr;
    *result = is_known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
