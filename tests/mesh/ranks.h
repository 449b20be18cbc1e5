/* tests/mesh/ranks.h -- run one function as every rank of a group: as threads, or as MPI processes. */
#ifndef TESTS_MESH_RANKS_H
#define TESTS_MESH_RANKS_H
#include "mesh/comm.h"
#include <functional>
#include <gtest/gtest.h>
#include <thread>
#include <vector>

#define ASSERT_OK(expression) ASSERT_EQ(TV_OK, (expression)) << tv_error_message()

using RankBody = std::function<void(struct tv_comm *)>;

/* A case of a contract: what one rank of the group does and expects. */
struct RankCase {
    const char *name;
    void (*run)(struct tv_comm *world);
};
inline void PrintTo(const RankCase &rank_case, std::ostream *out)
{
    *out << rank_case.name;
}
const std::vector<RankCase> &collective_cases();
const std::vector<RankCase> &message_cases();
const std::vector<RankCase> &group_cases();
const std::vector<RankCase> &mesh_cases();
std::vector<RankCase> all_cases();

/* A failed rank ends the group, so that its peers do not wait for it. */
inline void run_rank(struct tv_comm *comm, const RankBody &body)
{
    tv_comm_set_timeout(comm, 60);
    body(comm);
    if (testing::Test::HasFailure())
        tv_comm_abort(comm, 1);
}

inline void run_threads(int size, const RankBody &body)
{
    std::vector<struct tv_comm *> comms((size_t)size);
    ASSERT_OK(tv_comm_thread_create(size, comms.data()));
    std::vector<std::thread> threads;
    for (struct tv_comm *comm : comms)
        threads.emplace_back([=] {
            run_rank(comm, body);
            tv_comm_destroy(comm);
        });
    for (std::thread &thread : threads)
        thread.join();
}

/* Allocations that trivet has made in this thread so far (counted_allocation.cc). */
int64_t num_allocations();
/* Let this thread's next allocation but `after` fail. */
void fail_allocation(int64_t after);
#endif
