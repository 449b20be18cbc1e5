/* tests/mesh/contract_collectives.cc -- collectives: every operation, type and size against sums in rank order. */
#include "mesh/ranks.h"
#include "mesh/values.h"
#include <algorithm>
#include <array>
#include <numeric>

static const int64_t counts[] = {0, 1, 3, 1000, 5000, 100003};

template <class T> static void check_reductions(struct tv_comm *world, int64_t count)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    for (tv_reduce_op_t op : {TV_SUM, TV_MAX, TV_MIN}) {
        std::vector<T> buffer = values_of<T>(rank, count);
        struct tv_request *request = nullptr;
        ASSERT_OK(
            tv_comm_all_reduce(world, buffer.data(), count, dtype_of<T>(), op, nullptr, &request));
        ASSERT_OK(tv_request_wait(&request));
        EXPECT_EQ(nullptr, request);
        EXPECT_TRUE(same_bits(buffer, reduced<T>(size, count, op)))
            << "all_reduce, op " << op << ", count " << count << ", rank " << rank;

        const int64_t part = (count + size - 1) / size;
        const std::vector<T> send = values_of<T>(rank, part * size);
        const std::vector<T> all = reduced<T>(size, part * size, op);
        std::vector<T> piece((size_t)part);
        ASSERT_OK(tv_comm_reduce_scatter(world, send.data(), piece.data(), part, dtype_of<T>(), op,
                                         nullptr, &request));
        ASSERT_OK(tv_request_wait(&request));
        const auto mine = all.begin() + rank * part;
        EXPECT_TRUE(same_bits(piece, std::vector<T>(mine, mine + part)))
            << "reduce_scatter, op " << op << ", count " << part << ", rank " << rank;
    }
}

static void reductions(struct tv_comm *world)
{
    for (int64_t count : counts) {
        check_reductions<float>(world, count);
        check_reductions<double>(world, count);
        check_reductions<int32_t>(world, count);
        check_reductions<int64_t>(world, count);
    }
}

/* fp32 sums in rank order, rounded once. */
static void bf16_reductions(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    for (int64_t count : {0, 1, 255, 256, 257, 4096, 5000}) {
        std::vector<uint16_t> own, want;
        for (int64_t i = 0; i < count; i++) {
            float sum = 0;
            for (int r = 0; r < size; r++) {
                /* each too small for the sum before it, but not all of them together */
                const float value = r == 0 ? 1.0f + (float)(i % 7) : 0x1p-9f * (float)(i % 5 + r);
                sum += tv_bf16_to_f32(tv_bf16_from_f32(value));
                if (r == rank)
                    own.push_back(tv_bf16_from_f32(value));
            }
            want.push_back(tv_bf16_from_f32(sum));
        }
        std::vector<uint16_t> buffer = own;
        ASSERT_OK(tv_comm_all_reduce_now(world, buffer.data(), count, TV_BF16, TV_SUM));
        EXPECT_EQ(buffer, want) << count;
        std::vector<int64_t> parts((size_t)size, count / size);
        parts[0] += count % size;
        const int64_t first = rank == 0 ? 0 : parts[0] + (rank - 1) * parts[1];
        std::vector<uint16_t> piece((size_t)parts[(size_t)rank]);
        struct tv_request *request = nullptr;
        ASSERT_OK(tv_comm_reduce_scatter_v(world, own.data(), piece.data(), parts.data(), TV_BF16,
                                           nullptr, &request));
        ASSERT_OK(tv_request_wait(&request));
        EXPECT_TRUE(std::equal(piece.begin(), piece.end(), want.begin() + first)) << count;
    }
}

template <class T> static void check_movers(struct tv_comm *world, int64_t count)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    std::vector<T> expected;
    for (int r = 0; r < size; r++) {
        const std::vector<T> part = values_of<T>(r, count);
        expected.insert(expected.end(), part.begin(), part.end());
    }
    const std::vector<T> own = values_of<T>(rank, count);
    for (bool is_in_place : {false, true}) {
        std::vector<T> all((size_t)(count * size));
        T *place = all.data() + rank * count;
        std::copy(own.begin(), own.end(), is_in_place ? place : all.data());
        struct tv_request *request = nullptr;
        ASSERT_OK(tv_comm_all_gather(world, is_in_place ? place : own.data(), all.data(), count,
                                     dtype_of<T>(), nullptr, &request));
        ASSERT_OK(tv_request_wait(&request));
        EXPECT_TRUE(same_bits(all, expected)) << "all_gather, count " << count;
    }
    for (int root : {0, size / 2, size - 1}) {
        std::vector<T> buffer = own;
        ASSERT_OK(tv_comm_broadcast_now(world, buffer.data(), count, dtype_of<T>(), root));
        EXPECT_TRUE(same_bits(buffer, values_of<T>(root, count))) << "broadcast, count " << count;
    }
}

static void movers(struct tv_comm *world)
{
    for (int64_t count : counts) {
        check_movers<float>(world, count);
        check_movers<double>(world, count);
        check_movers<int32_t>(world, count);
        check_movers<int64_t>(world, count);
        check_movers<uint16_t>(world, count);
        check_movers<uint8_t>(world, count);
    }
}

/* The inputs can tell: over three or more ranks a sum from the other end has other bits. */
static void inputs_show_the_order(struct tv_comm *world)
{
    for (int size : {3, 4, 8}) {
        EXPECT_FALSE(same_bits(reduced<float>(size, 1000, TV_SUM),
                               reduced<float>(size, 1000, TV_SUM, true)));
        EXPECT_FALSE(same_bits(reduced<float>(size, 100003, TV_SUM),
                               reduced<float>(size, 100003, TV_SUM, true)));
    }
    (void)world;
}

static void nan_survives_max_and_min(struct tv_comm *world)
{
    for (int64_t count : {3, 100003}) {
        for (int who = 0; who < tv_comm_size(world); who++) {
            for (tv_reduce_op_t op : {TV_MAX, TV_MIN}) {
                std::vector<float> buffer((size_t)count, 1.0f);
                if (tv_comm_rank(world) == who)
                    buffer[1] = NAN;
                ASSERT_OK(tv_comm_all_reduce_now(world, buffer.data(), count, TV_F32, op));
                EXPECT_TRUE(std::isnan(buffer[1])) << "from rank " << who;
                EXPECT_EQ(1.0f, buffer[2]);
            }
        }
    }
}

/* The same on threads and processes, today and tomorrow: small and large messages. */
static void bits_are_pinned(struct tv_comm *world)
{
    struct Pinned {
        int size;
        int64_t count;
        uint64_t checksum;
    };
    static const Pinned pinned[] = {
        {1, 1000, 0x31c557cd4b4e4ab0u}, {1, 100003, 0xcb9624d029700156u},
        {2, 1000, 0x2085e88e8bc530a6u}, {2, 100003, 0x8e5e3740b51ec149u},
        {3, 1000, 0x44a68da49f0d2c3eu}, {3, 100003, 0x60cd24f8d3996a10u},
        {4, 1000, 0x4809af8d8fffe144u}, {4, 100003, 0x3ce46e64360d410bu},
        {8, 1000, 0x819ae541f23b0f5eu}, {8, 100003, 0x69a1186195cba780u},
    };
    for (const Pinned &pin : pinned) {
        if (pin.size != tv_comm_size(world))
            continue;
        std::vector<float> buffer = values_of<float>(tv_comm_rank(world), pin.count);
        ASSERT_OK(tv_comm_all_reduce_now(world, buffer.data(), pin.count, TV_F32, TV_SUM));
        EXPECT_EQ(pin.checksum, checksum(buffer)) << pin.size << " ranks, " << pin.count;
    }
}

/* A sum of any length, of values that repeat: every element, and what is sent. */
static void check_long_sum(struct tv_comm *world, int64_t count)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    const int64_t period = 997;
    const std::vector<float> own = values_of<float>(rank, period),
                             want = reduced<float>(size, period, TV_SUM);
    std::vector<float> buffer((size_t)count);
    for (int64_t i = 0; i < count; i++)
        buffer[(size_t)i] = own[(size_t)(i % period)];
    const int64_t before = tv_comm_get_stats(world).sent_bytes;
    ASSERT_OK(tv_comm_all_reduce_now(world, buffer.data(), count, TV_F32, TV_SUM));
    EXPECT_EQ(tv_all_reduce_sent_bytes(count, TV_F32, size, rank, -1),
              tv_comm_get_stats(world).sent_bytes - before);
    int64_t num_wrong = 0;
    for (int64_t i = 0; i < count; i++)
        num_wrong += buffer[(size_t)i] != want[(size_t)(i % period)];
    EXPECT_EQ(0, num_wrong) << "of " << count << ", rank " << rank;
}

/* As many blocks as messages may have, of which the last rank has fewer. */
static void many_blocks(struct tv_comm *world)
{
    const int size = tv_comm_size(world);
    const int64_t of_a_block = (512 << 10) / sizeof(float);
    const int64_t num_blocks = size == 1 ? 2 : 16 / (size - 1) + 3;
    check_long_sum(world, (num_blocks * of_a_block + 5) * size - of_a_block * 3 / 2);
}

static void repeats_give_the_same_bits(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    const std::vector<float> input = values_of<float>(rank, 5000);
    const std::vector<float> expected = reduced<float>(size, 5000, TV_SUM);
    for (int repeat = 0; repeat < 100; repeat++) {
        std::vector<float> buffer = input;
        ASSERT_OK(tv_comm_all_reduce_now(world, buffer.data(), 5000, TV_F32, TV_SUM));
        ASSERT_TRUE(same_bits(buffer, expected)) << "repeat " << repeat;
    }
}

/* Thirty sums of different sizes in flight; odd ranks wait in the opposite order. */
static void many_in_flight(struct tv_comm *world)
{
    enum { NUM = 30 };
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    std::array<std::vector<float>, NUM> buffers;
    std::array<struct tv_request *, NUM> requests{};
    for (int i = 0; i < NUM; i++) {
        buffers[(size_t)i] = values_of<float>(rank, 1 + 700 * i);
        ASSERT_OK(tv_comm_all_reduce(world, buffers[(size_t)i].data(), 1 + 700 * i, TV_F32, TV_SUM,
                                     nullptr, &requests[(size_t)i]));
    }
    for (int i = 0; i < NUM; i++)
        ASSERT_OK(tv_request_wait(&requests[(size_t)(rank % 2 ? NUM - 1 - i : i)]));
    for (int i = 0; i < NUM; i++)
        EXPECT_TRUE(same_bits(buffers[(size_t)i], reduced<float>(size, 1 + 700 * i, TV_SUM)));
}

/* A rank that waits in one group still takes its part in the other. */
static void groups_wait_in_any_order(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    const int64_t count = 20000;
    struct tv_comm *other = nullptr;
    ASSERT_OK(tv_comm_split(world, 0, rank, &other));
    std::vector<float> a = values_of<float>(rank, count), b = a;
    struct tv_request *in_world = nullptr, *in_other = nullptr;
    ASSERT_OK(tv_comm_all_reduce(world, a.data(), count, TV_F32, TV_SUM, nullptr, &in_world));
    ASSERT_OK(tv_comm_all_reduce(other, b.data(), count, TV_F32, TV_SUM, nullptr, &in_other));
    struct tv_request **first = rank % 2 ? &in_world : &in_other;
    struct tv_request **second = rank % 2 ? &in_other : &in_world;
    ASSERT_OK(tv_request_wait(first));
    for (int done = 0, rounds = 0; !done; tv_comm_relax(rounds++))
        ASSERT_OK(tv_request_test(second, &done));
    EXPECT_EQ(nullptr, *second);
    EXPECT_TRUE(same_bits(a, reduced<float>(size, count, TV_SUM)));
    EXPECT_TRUE(same_bits(b, a));
    tv_comm_destroy(other);
}

static void do_some_of_everything(struct tv_comm *world, std::vector<float> &buffer)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
    std::array<struct tv_request *, 4> requests{};
    float *data = buffer.data(), *rest = data + 40000;
    ASSERT_OK(tv_comm_all_reduce(world, data, 20000, TV_F32, TV_MAX, nullptr, &requests[0]));
    ASSERT_OK(tv_comm_all_reduce(world, data + 20000, 10, TV_F32, TV_MAX, nullptr, &requests[1]));
    ASSERT_OK(tv_comm_send(world, data + 30000, 5000, TV_F32, next, nullptr, &requests[2]));
    ASSERT_OK(tv_comm_recv(world, data + 35000, 5000, TV_F32, previous, nullptr, &requests[3]));
    for (auto &request : requests)
        ASSERT_OK(tv_request_wait(&request));
    ASSERT_OK(tv_comm_broadcast_now(world, data, 3000, TV_F32, 0));
    ASSERT_OK(
        tv_comm_reduce_scatter(world, data, rest, 1000, TV_F32, TV_MIN, nullptr, &requests[0]));
    ASSERT_OK(tv_request_wait(&requests[0]));
    ASSERT_OK(tv_comm_all_gather(world, data, rest, 1000, TV_F32, nullptr, &requests[0]));
    ASSERT_OK(tv_request_wait(&requests[0]));
}

static void steady_state_allocates_nothing(struct tv_comm *world)
{
    std::vector<float> buffer(40000 + 1000 * (size_t)tv_comm_size(world), 1.0f);
    for (int i = 0; i < 3; i++)
        do_some_of_everything(world, buffer);
    const int64_t before = num_allocations();
    EXPECT_GT(before, 0); /* they are counted */
    for (int i = 0; i < 10; i++)
        do_some_of_everything(world, buffer);
    EXPECT_EQ(before, num_allocations());
}

/* Sums in rank order, in place and not; every rank's pieces; (size - 1) x all bytes over the ranks. */
static void check_uneven(struct tv_comm *world, const std::vector<int64_t> &parts)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    const int64_t total = std::accumulate(parts.begin(), parts.end(), (int64_t)0);
    const int64_t first = std::accumulate(parts.begin(), parts.begin() + rank, (int64_t)0);
    const std::vector<float> all = reduced<float>(size, total, TV_SUM);
    const std::vector<float> want(all.begin() + first, all.begin() + first + parts[(size_t)rank]);
    for (bool is_in_place : {false, true}) {
        struct tv_request *request = nullptr;
        std::vector<float> send = values_of<float>(rank, total), apart(want.size());
        float *const place = is_in_place ? send.data() + first : apart.data();
        int64_t sent = -tv_comm_get_stats(world).sent_bytes;
        ASSERT_OK(tv_comm_reduce_scatter_v(world, send.data(), place, parts.data(), TV_F32, nullptr,
                                           &request));
        ASSERT_OK(tv_request_wait(&request));
        sent += tv_comm_get_stats(world).sent_bytes;
        EXPECT_EQ(size > 1 ? 4 * (total - parts[(size_t)rank]) : 0, sent);
        const std::vector<float> piece(place, place + want.size());
        EXPECT_TRUE(same_bits(piece, want)) << "reduce_scatter_v, " << total << ", rank " << rank;

        std::vector<float> whole((size_t)total);
        float *const own = is_in_place ? whole.data() + first : apart.data();
        std::copy(want.begin(), want.end(), own);
        sent = -tv_comm_get_stats(world).sent_bytes;
        ASSERT_OK(tv_comm_all_gather_v(world, own, whole.data(), parts.data(), TV_F32, nullptr,
                                       &request));
        ASSERT_OK(tv_request_wait(&request));
        sent += tv_comm_get_stats(world).sent_bytes;
        EXPECT_EQ((size - 1) * 4 * parts[(size_t)rank], sent);
        EXPECT_TRUE(same_bits(whole, all)) << "all_gather_v, " << total << ", rank " << rank;
    }
}

static void uneven_pieces(struct tv_comm *world)
{
    const int size = tv_comm_size(world);
    std::vector<int64_t> parts((size_t)size, 0);
    check_uneven(world, parts); /* nothing at all */
    parts.back() = 1;
    check_uneven(world, parts); /* fewer elements than ranks */
    for (int r = 0; r < size; r++)
        parts[(size_t)r] = r * 1001 % 4096;
    check_uneven(world, parts); /* the first one empty */
    std::reverse(parts.begin(), parts.end());
    check_uneven(world, parts);
    parts[0] = -1;
    struct tv_request *request = nullptr;
    float nothing = 0;
    EXPECT_EQ(TV_INVALID, tv_comm_all_gather_v(world, &nothing, &nothing, parts.data(), TV_F32,
                                               nullptr, &request));
}

/* Where ranks reach each other's memory, large sums and gathers need no messages; all ranks know it, and the other way
 * is still there, with the same bits and the same account. */
static void messages_do_the_same(struct tv_comm *world)
{
    const int size = tv_comm_size(world);
    struct tv_comm *other = nullptr;
    ASSERT_OK(tv_comm_split(world, 0, tv_comm_rank(world), &other));
    std::array<int32_t, 2> reaches = {tv_comm_reaches_peers(world), tv_comm_reaches_peers(other)};
    EXPECT_EQ(reaches[0], reaches[1]);
    if (size == 1 || tv_comm_backend(world) == std::string("thread")) {
        EXPECT_EQ(size > 1, reaches[0] == 1);
    }
    int32_t most = reaches[0];
    ASSERT_OK(tv_comm_all_reduce_now(world, &most, 1, TV_I32, TV_MAX));
    EXPECT_EQ(most, reaches[0]);
    tv_comm_forget_reach(other);
    EXPECT_EQ(0, tv_comm_reaches_peers(other));
    check_reductions<float>(other, 100003);
    bf16_reductions(other);
    check_movers<float>(other, 100003);
    bits_are_pinned(other);
    many_blocks(other);
    uneven_pieces(other);
    tv_comm_destroy(other);
}

/* Both sides of the least size that goes through memory, and several of its blocks, uneven too. */
static void sizes_around_blocks(struct tv_comm *world)
{
    const int size = tv_comm_size(world);
    const int64_t least = (32 << 10) / sizeof(float), block = (256 << 10) / sizeof(float);
    for (int64_t count : {least - 1, least, (block - 1) * size, block * size, block * size + 1,
                          3 * block * size + 7})
        check_long_sum(world, count);
    std::vector<int64_t> parts((size_t)size, 3);
    parts[0] = block + 5;
    parts.back() = block / 2;
    check_uneven(world, parts);
    for (int64_t total : {least - 1, least}) { /* all of it one rank's */
        std::fill(parts.begin(), parts.end(), 0);
        parts[(size_t)size / 2] = total;
        check_uneven(world, parts);
    }
    for (int64_t total : {least - 1, least, least + size})
        check_movers<float>(world, total / size);
}

const std::vector<RankCase> &collective_cases()
{
    static const std::vector<RankCase> cases = {
        {"reductions", reductions},
        {"bf16_reductions", bf16_reductions},
        {"movers", movers},
        {"uneven_pieces", uneven_pieces},
        {"inputs_show_the_order", inputs_show_the_order},
        {"nan_survives_max_and_min", nan_survives_max_and_min},
        {"bits_are_pinned", bits_are_pinned},
        {"many_blocks", many_blocks},
        {"messages_do_the_same", messages_do_the_same},
        {"sizes_around_blocks", sizes_around_blocks},
        {"repeats_give_the_same_bits", repeats_give_the_same_bits},
        {"many_in_flight", many_in_flight},
        {"groups_wait_in_any_order", groups_wait_in_any_order},
        {"steady_state_allocates_nothing", steady_state_allocates_nothing},
    };
    return cases;
}
