/* tests/tensor/axis_ranks.h -- run one function as every rank of a tensor axis: threads, each with
 * a device and a stream of its own. */
#ifndef TESTS_TENSOR_AXIS_RANKS_H
#define TESTS_TENSOR_AXIS_RANKS_H
#include "tensor/tensor.h"
#include <functional>
#include <gtest/gtest.h>
#include <thread>
#include <vector>

#define ASSERT_OK(expression) ASSERT_EQ(TV_OK, (expression)) << tv_error_message()

using AxisBody = std::function<void(const struct tv_tensor_axis &axis)>;

inline void run_axis_rank(struct tv_comm *comm, const struct tv_kernels *kernels,
                          const AxisBody &body)
{
    tv_comm_set_timeout(comm, 60);
    struct tv_device *device = nullptr;
    struct tv_stream *stream = nullptr;
    ASSERT_OK(tv_device_open(TV_DEVICE_CPU, 1, &device));
    ASSERT_OK(tv_stream_create(device, &stream));
    body({comm, stream, kernels, 0, 0, 0});
    if (testing::Test::HasFailure())
        tv_comm_abort(comm, 1); /* so that the peers do not wait for this rank */
    tv_stream_destroy(stream);
    for (int kind = 0; kind < TV_NUM_MEM_KINDS; kind++)
        EXPECT_EQ(0u, tv_device_bytes(device, (tv_mem_kind_t)kind)) << "not given back";
    tv_device_close(device);
}

/* T = 1 runs in this thread, on a self communicator. */
inline void run_axis(int T, const struct tv_kernels *kernels, const AxisBody &body)
{
    std::vector<struct tv_comm *> comms((size_t)T);
    if (T == 1) {
        ASSERT_OK(tv_comm_self_create(&comms[0]));
        run_axis_rank(comms[0], kernels, body);
        tv_comm_destroy(comms[0]);
        return;
    }
    ASSERT_OK(tv_comm_thread_create(T, comms.data()));
    std::vector<std::thread> threads;
    for (struct tv_comm *comm : comms)
        threads.emplace_back([=] {
            run_axis_rank(comm, kernels, body);
            tv_comm_destroy(comm);
        });
    for (std::thread &thread : threads)
        thread.join();
}
#endif
