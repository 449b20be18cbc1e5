// hopper.cc -- products of warpgroups (wgmma) and barriers: mbarrier and named ones. PTX ISA, "Asynchronous warpgroup
// level matrix instructions": operands are found from the descriptors' bits alone.
#include "emulation/emulation.h"
#include "emulation/include/emulated_hopper.h"
#include "emulation/tma.h"
#include <deque>

namespace emulation
{
namespace
{
constexpr unsigned group_threads = 128;
constexpr uint64_t shared_mask = 0x3ffff;

struct Issued {
    WarpgroupProduct product;
    bool has_before; // the first one under way that writes this d
    float before[64];
};
// Of one thread: closed groups, oldest first, and at the back the open one.
struct Products {
    std::deque<std::vector<Issued>> closed;
    std::vector<Issued> open;
    bool is_fenced = false;
};
struct Meeting { // of a warpgroup
    unsigned arrived = 0;
    unsigned long turn = 0;
    Site site = {"", 0};
};
struct Named {
    int arrived = 0, threads = 0;
    unsigned long turn = 0;
};
struct Block {
    std::vector<Products> products = std::vector<Products>(1024);
    Meeting meetings[8];
    Named named[16];
};
thread_local Block block;

bool is_under_way(const Products &mine, const float *d)
{
    const auto writes = [d](const Issued &one) { return one.product.d == d; };
    for (const std::vector<Issued> &group : mine.closed)
        for (const Issued &one : group)
            if (writes(one))
                return true;
    for (const Issued &one : mine.open)
        if (writes(one))
            return true;
    return false;
}

// Where element (row of the operand, k) lies: shared addresses of 18 bits, swizzled by the address' own bits.
class Operand
{
  public:
    Operand(uint64_t descriptor, bool is_transposed_)
        : at((descriptor & 0x3fff) << 4), leading((descriptor >> 16 & 0x3fff) << 4),
          stride((descriptor >> 32 & 0x3fff) << 4), is_transposed(is_transposed_)
    {
        if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
            fail("a descriptor of shared memory that is not of 128-byte swizzle: %llx",
                 (unsigned long long)descriptor);
    }
    float element(unsigned row, unsigned k) const
    {
        const uint64_t from = is_transposed
                                  ? k % 8 * 128 + k / 8 * stride + row / 64 * leading + row % 64 * 2
                                  : row % 8 * 128 + row / 8 * stride + k * 2;
        const uint64_t address = (at + from) & shared_mask;
        const uint64_t base = reinterpret_cast<uint64_t>(dynamic_shared());
        const uint64_t place = (swizzled(address) - base) & shared_mask;
        if (place + 2 > dynamic_shared_bytes()) {
            fail("a product reads %llu bytes behind the start of shared memory, of %zu",
                 (unsigned long long)place, dynamic_shared_bytes());
            return 0;
        }
        uint16_t bits;
        std::memcpy(&bits, static_cast<const unsigned char *>(dynamic_shared()) + place, 2);
        return tv_bf16_to_f32(bits);
    }

  private:
    uint64_t at, leading, stride;
    bool is_transposed;
};

bool is_same(const WarpgroupProduct &x, const WarpgroupProduct &y)
{
    return x.columns == y.columns && x.has_a == y.has_a && x.a == y.a && x.b == y.b &&
           x.is_a_transposed == y.is_a_transposed && x.is_b_transposed == y.is_b_transposed &&
           x.adds == y.adds && x.site.line == y.site.line;
}

// Element (row, k) of the a that a warpgroup holds in registers.
float held(const Issued *const threads[group_threads], unsigned row, unsigned k)
{
    const unsigned thread = row / 16 * 32 + row % 8 * 4 + k % 8 / 2;
    const uint32_t word = threads[thread]->product.a_words[row / 8 % 2 + k / 8 * 2];
    return element(word, (int)(k % 2));
}

void multiply_group(const Issued *const threads[group_threads])
{
    const WarpgroupProduct &first = threads[0]->product;
    static thread_local float a[64][16], b[16][128];
    const unsigned columns = (unsigned)first.columns;
    const Operand of_b(first.b, first.is_b_transposed);
    for (unsigned i = 0; i < 64 * 16; i++)
        a[i / 16][i % 16] = first.has_a
                                ? held(threads, i / 16, i % 16)
                                : Operand(first.a, first.is_a_transposed).element(i / 16, i % 16);
    for (unsigned i = 0; i < 16 * columns; i++)
        b[i / columns][i % columns] = of_b.element(i % columns, i / columns);
    for (unsigned thread = 0; thread < group_threads; thread++) {
        float *d = threads[thread]->product.d;
        for (unsigned i = 0; i < columns / 2; i++) {
            const unsigned row = thread / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8;
            const unsigned column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            float sum = first.adds ? d[i] : 0;
            for (unsigned k = 0; k < 16; k++)
                sum += a[row][k] * b[k][column];
            d[i] = sum;
        }
    }
}

// The nth product of every thread's oldest group.
void run_product(unsigned group, size_t nth)
{
    const Issued *threads[group_threads];
    for (unsigned i = 0; i < group_threads; i++) {
        const std::vector<Issued> &oldest = block.products[group * group_threads + i].closed[0];
        if (i > 0 && !is_same(oldest[nth].product, threads[0]->product)) {
            fail("a warpgroup's threads issue different products: thread %u", i);
            return;
        }
        threads[i] = &oldest[nth];
        const WarpgroupProduct &mine = threads[i]->product;
        if (threads[i]->has_before && std::memcmp(mine.d, threads[i]->before,
                                                  sizeof(float) * (size_t)mine.columns / 2) != 0) {
            fail("thread %u changed the result of a product under way, of %s:%d", i, mine.site.file,
                 mine.site.line);
            return;
        }
    }
    multiply_group(threads);
}

void run_groups(unsigned group, int groups_left)
{
    Products *all = &block.products[group * group_threads];
    while (all[0].closed.size() > (size_t)groups_left) {
        const size_t count = all[0].closed[0].size();
        for (unsigned i = 0; i < group_threads; i++)
            if (all[i].closed.size() != all[0].closed.size() || all[i].closed[0].size() != count) {
                fail("a warpgroup's threads issue different groups of products: thread %u", i);
                return;
            }
        for (size_t nth = 0; nth < count; nth++)
            run_product(group, nth);
        for (unsigned i = 0; i < group_threads; i++)
            all[i].closed.pop_front();
    }
}
} // namespace

uint64_t swizzled(uint64_t address)
{
    return address ^ (address >> 7 & 7) << 4;
}

void fence_products()
{
    block.products[thread_number()].is_fenced = true;
}

void start_product(const WarpgroupProduct &product)
{
    Products &mine = block.products[thread_number()];
    if (!mine.is_fenced)
        fail("a group of products without a fence: %s:%d", product.site.file, product.site.line);
    const size_t bytes = sizeof(float) * (size_t)product.columns / 2;
    Issued issued = {product, !is_under_way(mine, product.d), {}};
    if (!product.adds && issued.has_before)
        std::memset(product.d, settings().fill, bytes);
    std::memcpy(issued.before, product.d, bytes);
    mine.open.push_back(issued);
}

void commit_products(Site)
{
    Products &mine = block.products[thread_number()];
    mine.closed.push_back(std::move(mine.open));
    mine.open.clear();
    mine.is_fenced = false;
}

void wait_for_products(int groups_left, Site site)
{
    const unsigned group = thread_number() / group_threads;
    Meeting &meeting = block.meetings[group];
    if (meeting.arrived > 0 && meeting.site.line != site.line)
        fail("a warpgroup waits for products at %s:%d and at line %d", site.file, site.line,
             meeting.site.line);
    meeting.site = site;
    if (++meeting.arrived < group_threads) {
        const unsigned long turn = meeting.turn;
        wait_until([&meeting, turn] { return meeting.turn != turn; }, "wgmma.wait_group", site);
        return;
    }
    meeting.arrived = 0;
    meeting.turn++;
    run_groups(group, groups_left);
}

// ---- barriers ----

namespace
{
constexpr unsigned initialized = 0x2d;
struct Barrier {
    uint64_t phase : 1, mark : 7, count : 12, pending : 12, bytes : 32; // bytes: modulo 2^32
};
static_assert(sizeof(Barrier) == 8, "as CUDA's");

Barrier read(const uint64_t *from)
{
    Barrier barrier;
    std::memcpy(&barrier, from, sizeof(barrier));
    if (barrier.mark != initialized)
        fail("a barrier that was not initialized");
    return barrier;
}

void write(uint64_t *to, Barrier barrier)
{
    if (barrier.pending == 0 && barrier.bytes == 0) {
        barrier.phase ^= 1;
        barrier.pending = barrier.count;
    }
    std::memcpy(to, &barrier, sizeof(barrier));
}
} // namespace

void init_barrier(uint64_t *barrier, unsigned arrivals)
{
    const Barrier fresh = {0, initialized, arrivals & 0xfff, arrivals & 0xfff, 0};
    std::memcpy(barrier, &fresh, sizeof(fresh));
}

void arrive(uint64_t *at, uint32_t expected_bytes)
{
    Barrier barrier = read(at);
    if (barrier.pending == 0) {
        fail("more threads arrive at a barrier than it was made for");
        return;
    }
    barrier.pending = (barrier.pending - 1) & 0xfff;
    barrier.bytes = (barrier.bytes + expected_bytes) & 0xffffffff;
    write(at, barrier);
}

void count_bytes(uint64_t *at, uint32_t bytes)
{
    Barrier barrier = read(at);
    barrier.bytes = (barrier.bytes - bytes) & 0xffffffff;
    write(at, barrier);
}

void wait_for_barrier(uint64_t *barrier, unsigned parity, Site site)
{
    wait_until(
        [barrier, parity] {
            if (read(barrier).phase == parity)
                run_loads(barrier);
            return read(barrier).phase != parity;
        },
        "mbarrier.try_wait", site);
}

void name_barrier(int id, int threads, bool waits, Site site)
{
    if (id < 1 || id > 15 || threads % 32 != 0) {
        fail("named barrier %d of %d threads at %s:%d", id, threads, site.file, site.line);
        return;
    }
    Named &named = block.named[id];
    if (named.arrived > 0 && named.threads != threads)
        fail("named barrier %d is of %d and of %d threads: %s:%d", id, named.threads, threads,
             site.file, site.line);
    named.threads = threads;
    const unsigned long turn = named.turn;
    if (++named.arrived == threads) {
        named.arrived = 0;
        named.turn++;
    } else if (waits) {
        wait_until([&named, turn] { return named.turn != turn; }, "bar.sync", site);
    }
}

void set_registers(int registers, Site site)
{
    if (registers < 24 || registers > 256 || registers % 8 != 0)
        fail("setmaxnreg of %d at %s:%d", registers, site.file, site.line);
    meet_warp(0xffffffffu, nullptr, nullptr, "setmaxnreg", site);
}

void end_hopper(unsigned num_threads)
{
    bool is_left = false;
    for (unsigned i = 0; i < num_threads; i++) {
        for (const std::vector<Issued> &group : block.products[i].closed)
            is_left |= !group.empty();
        is_left |= !block.products[i].open.empty();
        block.products[i] = {};
    }
    if (is_left)
        fail("a block ended with a product that nothing waited for");
    for (Meeting &meeting : block.meetings)
        meeting = {};
    for (Named &named : block.named)
        named = {};
    end_bulk(num_threads);
}
} // namespace emulation
