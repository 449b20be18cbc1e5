/* tests/mesh/test_comm_mpi.cc -- the contract over MPI processes, the doors to MPI, and the cutting of long
 * messages. */
#include "mesh/comm_mpi.h"
#include "mesh/comm_mpi_internal.h"
#include "mesh/mpi_main.h"
#include "mesh/values.h"
#include <string>

class MpiContract : public testing::TestWithParam<RankCase>
{
};

TEST_P(MpiContract, Holds)
{
    run_rank(mpi_world, GetParam().run);
}

INSTANTIATE_TEST_SUITE_P(Mpi, MpiContract, testing::ValuesIn(all_cases()),
                         [](const auto &test) { return std::string(test.param.name); });

TEST(CommMpi, WorldIsTheLaunchersWorld)
{
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    EXPECT_EQ(rank, tv_comm_rank(mpi_world));
    EXPECT_EQ(size, tv_comm_size(mpi_world));
    EXPECT_STREQ("mpi", tv_comm_backend(mpi_world));
    char version[40];
    tv_comm_mpi_version(version, sizeof(version));
    EXPECT_STRNE("", version);
    EXPECT_EQ(nullptr, std::strchr(version, '\n'));
}

/* On one node, over shared memory, leaving comes back, with the world still there, so that MPI can be finalized. */
TEST(CommMpi, LeavingOneNodeReturns)
{
    ASSERT_OK(tv_comm_mpi_leave(mpi_world, 3));
    ASSERT_OK(tv_comm_barrier(mpi_world));
}

/* A group can be given to MPI, has the same ranks there, and does not see the messages of trivet. */
TEST(CommMpi, GroupsHaveMpiCommunicators)
{
    const int rank = tv_comm_rank(mpi_world), size = tv_comm_size(mpi_world);
    struct tv_comm *reversed = nullptr;
    ASSERT_OK(tv_comm_split(mpi_world, 0, -rank, &reversed));
    MPI_Comm mpi = MPI_COMM_NULL;
    ASSERT_OK(tv_comm_mpi_get(reversed, &mpi));
    int mpi_rank, mpi_size;
    MPI_Comm_rank(mpi, &mpi_rank);
    MPI_Comm_size(mpi, &mpi_size);
    EXPECT_EQ(size, mpi_size);
    EXPECT_EQ(size - 1 - rank, mpi_rank);
    int32_t ours = rank, got = -1, theirs = -1;
    const int next = (mpi_rank + 1) % size, previous = (mpi_rank + size - 1) % size;
    struct tv_request *send = nullptr, *recv = nullptr;
    ASSERT_OK(tv_comm_send(reversed, &ours, 1, TV_I32, next, nullptr, &send));
    int32_t letter = 1000 + rank;
    MPI_Sendrecv(&letter, 1, MPI_INT32_T, next, 0, &theirs, 1, MPI_INT32_T, previous, MPI_ANY_TAG,
                 mpi, MPI_STATUS_IGNORE);
    ASSERT_OK(tv_comm_recv(reversed, &got, 1, TV_I32, previous, nullptr, &recv));
    ASSERT_OK(tv_request_wait(&send));
    ASSERT_OK(tv_request_wait(&recv));
    EXPECT_EQ(got + 1000, theirs);
    EXPECT_EQ(got, size - 1 - previous);
    tv_comm_destroy(reversed);
}

TEST(CommMpi, SelfAndThreadsHaveNone)
{
    MPI_Comm mpi = MPI_COMM_NULL;
    struct tv_comm *self = nullptr, *threads[2];
    ASSERT_OK(tv_comm_self_create(&self));
    ASSERT_OK(tv_comm_mpi_get(self, &mpi));
    EXPECT_EQ(MPI_COMM_SELF, mpi);
    tv_comm_destroy(self);
    ASSERT_OK(tv_comm_thread_create(2, threads));
    EXPECT_EQ(TV_UNSUPPORTED, tv_comm_mpi_get(threads[0], &mpi));
    tv_comm_destroy(threads[0]);
    tv_comm_destroy(threads[1]);
}

/* A communicator of the caller's: wrapped, used, destroyed, and still the caller's. */
TEST(CommMpi, WrapsACallersCommunicator)
{
    MPI_Comm theirs;
    ASSERT_EQ(MPI_SUCCESS, MPI_Comm_dup(MPI_COMM_WORLD, &theirs));
    struct tv_comm *comm = nullptr;
    ASSERT_OK(tv_comm_mpi_create(theirs, &comm));
    MPI_Comm borrowed = MPI_COMM_NULL;
    ASSERT_OK(tv_comm_mpi_get(comm, &borrowed));
    EXPECT_EQ(theirs, borrowed);
    int32_t ones = 1;
    ASSERT_OK(tv_comm_all_reduce_now(comm, &ones, 1, TV_I32, TV_SUM));
    EXPECT_EQ(tv_comm_size(mpi_world), ones);
    tv_comm_destroy(comm);
    EXPECT_EQ(MPI_SUCCESS, MPI_Barrier(theirs));
    MPI_Comm_free(&theirs);
}

/* A second world leaves MPI running for the first. */
TEST(CommMpi, OnlyTheFirstWorldFinalizes)
{
    struct tv_comm *second = nullptr;
    ASSERT_OK(tv_comm_mpi_world(&second));
    ASSERT_OK(tv_comm_barrier(second));
    tv_comm_destroy(second);
    int is_finalized = 1;
    MPI_Finalized(&is_finalized);
    EXPECT_EQ(0, is_finalized);
    ASSERT_OK(tv_comm_barrier(mpi_world));
}

static struct tv_comm *copy_with_pieces_of(int64_t bytes)
{
    struct tv_comm *copy = nullptr;
    EXPECT_EQ(TV_OK, tv_comm_split(mpi_world, 0, tv_comm_rank(mpi_world), &copy));
    tv_comm_mpi_set_piece_bytes(copy, bytes);
    return copy;
}

TEST(CommMpi, LongMessagesAreCut)
{
    if (tv_comm_size(mpi_world) < 2)
        GTEST_SKIP() << "needs a peer";
    struct tv_comm *comm = copy_with_pieces_of(64);
    const int rank = tv_comm_rank(comm), size = tv_comm_size(comm);
    const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
    for (int64_t count : {0, 1, 63, 64, 65, 128, 1000, 6400}) {
        const std::vector<uint8_t> mine = values_of<uint8_t>(rank, count);
        std::vector<uint8_t> got((size_t)count);
        struct tv_request *send = nullptr, *recv = nullptr;
        ASSERT_OK(tv_comm_send(comm, mine.data(), count, TV_U8, next, nullptr, &send));
        ASSERT_OK(tv_comm_recv(comm, got.data(), count, TV_U8, previous, nullptr, &recv));
        ASSERT_OK(tv_request_wait(&recv));
        ASSERT_OK(tv_request_wait(&send));
        EXPECT_TRUE(same_bits(got, values_of<uint8_t>(previous, count))) << count;
        std::vector<float> sum = values_of<float>(rank, count);
        ASSERT_OK(tv_comm_all_reduce_now(comm, sum.data(), count, TV_F32, TV_SUM));
        EXPECT_TRUE(same_bits(sum, reduced<float>(size, count, TV_SUM))) << count;
        ASSERT_OK(tv_comm_broadcast_now(comm, got.data(), count, TV_U8, 0));
        EXPECT_TRUE(same_bits(got, values_of<uint8_t>(size - 1, count))) << count;
    }
    tv_comm_destroy(comm);
}

/* Lengths that differ by whole pieces are noticed too. */
TEST(CommMpi, CutMessagesOfDifferentLengths)
{
    if (tv_comm_size(mpi_world) != 2)
        GTEST_SKIP() << "for two ranks";
    for (int64_t sent : {64, 192, 130}) {
        struct tv_comm *comm = copy_with_pieces_of(64);
        std::vector<uint8_t> buffer(256);
        struct tv_request *request = nullptr;
        if (tv_comm_rank(comm) == 0) {
            ASSERT_OK(tv_comm_send(comm, buffer.data(), sent, TV_U8, 1, nullptr, &request));
            ASSERT_OK(tv_request_wait(&request));
        } else {
            ASSERT_OK(tv_comm_recv(comm, buffer.data(), 128, TV_U8, 0, nullptr, &request));
            EXPECT_EQ(TV_PEER, tv_request_wait(&request)) << sent;
            if (sent ==
                192) { /* the empty last piece is still under way: a later group would get it */
                ASSERT_OK(tv_comm_recv(comm, buffer.data(), 0, TV_U8, 0, nullptr, &request));
                ASSERT_OK(tv_request_wait(&request));
            }
        }
        ASSERT_OK(tv_comm_barrier(mpi_world));
        tv_comm_destroy(comm);
    }
}

int main(int argc, char **argv)
{
    return mpi_main(argc, argv);
}
