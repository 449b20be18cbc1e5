/* tests/mesh/test_comm_large.cc -- messages of more bytes than an int can count: 2^31 + 1 bytes, and 2^29 floats. */
#include "mesh/mpi_main.h"
#include <vector>

template <class T> struct Large {
    std::vector<T> buffer;
    int64_t count;

    explicit Large(int64_t num) : buffer((size_t)num), count(num)
    {
    }

    /* Marks at both ends, in the middle, and on both sides of each multiple of 2^30 bytes. */
    std::vector<size_t> places() const
    {
        const int64_t step = (1 << 30) / (int64_t)sizeof(T);
        std::vector<size_t> at = {0, (size_t)count / 2, (size_t)count - 1};
        for (int64_t edge = step; edge < count; edge += step) {
            at.push_back((size_t)edge - 1);
            at.push_back((size_t)edge);
        }
        return at;
    }

    void mark(int seed)
    {
        std::fill(buffer.begin(), buffer.end(), (T)0);
        for (size_t place : places())
            buffer[place] = (T)(seed + (int)(place % 100));
    }

    void expect_marks(int seed) const
    {
        for (size_t place : places())
            EXPECT_EQ((T)(seed + (int)(place % 100)), buffer[place]) << "element " << place;
    }
};

template <class T> static void check_large(int64_t count, tv_dtype_t dtype)
{
    ASSERT_EQ(2, tv_comm_size(mpi_world));
    const int rank = tv_comm_rank(mpi_world);
    Large<T> data(count);
    struct tv_request *request = nullptr;
    data.mark(rank == 0 ? 20 : 0);
    ASSERT_OK(tv_comm_broadcast_now(mpi_world, data.buffer.data(), count, dtype, 0));
    data.expect_marks(20);
    data.mark(rank == 1 ? 50 : 0);
    if (rank == 1)
        ASSERT_OK(tv_comm_send(mpi_world, data.buffer.data(), count, dtype, 0, nullptr, &request));
    else
        ASSERT_OK(tv_comm_recv(mpi_world, data.buffer.data(), count, dtype, 1, nullptr, &request));
    ASSERT_OK(tv_request_wait(&request));
    data.expect_marks(50);
}

TEST(CommLarge, BytesBeyondAnInt)
{
    check_large<uint8_t>(2147483649, TV_U8);
}

TEST(CommLarge, FloatsBeyondAnIntOfBytes)
{
    check_large<float>(536870912, TV_F32);
}

TEST(CommLarge, GatherBeyondAnInt)
{
    const int64_t count = 1073741825; /* two of them: 2^31 + 2 bytes */
    const int rank = tv_comm_rank(mpi_world);
    std::vector<uint8_t> all(2 * (size_t)count);
    uint8_t *own = all.data() + rank * count;
    own[0] = (uint8_t)(7 + rank);
    own[count - 1] = (uint8_t)(17 + rank);
    struct tv_request *request = nullptr;
    ASSERT_OK(tv_comm_all_gather(mpi_world, own, all.data(), count, TV_U8, nullptr, &request));
    ASSERT_OK(tv_request_wait(&request));
    for (int r = 0; r < 2; r++) {
        EXPECT_EQ(7 + r, all[(size_t)(r * count)]);
        EXPECT_EQ(17 + r, all[(size_t)((r + 1) * count - 1)]);
    }
}

int main(int argc, char **argv)
{
    return mpi_main(argc, argv);
}
