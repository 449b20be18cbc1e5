/* Time that ranks wait for the tensor axis, with overlap and without: messages take their time
 * (mesh/delaying_comm.h), and so do matrix products, which sleep: no core is needed. */
#include "mesh/delaying_comm.h"
#include "tensor/axis_ranks.h"
#include <atomic>
#include <chrono>

namespace
{

constexpr int T = 2;
constexpr int64_t rows = 1024, in = 8, out = 64;
constexpr double seconds_of_row = 0.2e-3;

/* Takes time in proportion to the rows that are multiplied. */
tv_status_t sleeping_matmul(struct tv_stream *, const struct tv_matmul_args *args)
{
    const int64_t num_rows = args->trans_a ? args->k : args->m;
    std::this_thread::sleep_for(std::chrono::duration<double>((double)num_rows * seconds_of_row));
    return TV_OK;
}

using AxisCase = std::function<void(const struct tv_tensor_axis &axis)>;

/* Seconds that the slower rank waited; all rows sent once take three quarters of their products. */
double exposed(int is_sequence_parallel, int is_overlapped, const AxisCase &body)
{
    const double rate = (double)(rows / T * out * 4) / (0.75 * (double)rows * seconds_of_row);
    struct delaying_links *links = nullptr;
    EXPECT_EQ(TV_OK, delaying_links_create(T, 1e-4, rate, &links));
    struct tv_kernels kernels = *tv_kernels_ref(TV_F32);
    kernels.matmul = kernels.matmul_to_f32 = sleeping_matmul;
    std::atomic<double> most = 0;
    run_axis(T, &kernels, [&](struct tv_tensor_axis axis) {
        struct tv_comm *comm = nullptr;
        ASSERT_OK(delaying_comm_create(axis.comm, links, &comm));
        axis.comm = comm;
        axis.is_sequence_parallel = is_sequence_parallel;
        axis.is_overlapped = is_overlapped;
        body(axis);
        const double waited = tv_comm_get_stats(comm).wait_seconds;
        double before = most;
        while (waited > before && !most.compare_exchange_weak(before, waited))
            ;
        tv_comm_destroy(comm);
    });
    delaying_links_destroy(links);
    return most;
}

/* Another process may take the cores away from one run. */
void expect_at_most_half(int is_sequence_parallel, const AxisCase &body)
{
    double off = 0, on = 0;
    for (int attempt = 0; attempt < 3; attempt++) {
        off = exposed(is_sequence_parallel, 0, body);
        on = exposed(is_sequence_parallel, 1, body);
        if (on <= off / 2)
            break;
    }
    testing::Test::RecordProperty("exposed_ms",
                                  std::to_string(1e3 * off) + " " + std::to_string(1e3 * on));
    EXPECT_LE(on, off / 2);
    EXPECT_GE(off, 0.7 * (double)rows * seconds_of_row) << "without overlap all of it is exposed";
}

struct Buffers {
    std::vector<float> x = std::vector<float>(rows * out), y = x, room = x,
                       weight = std::vector<float>(in * out);
    struct tv_linear linear = {in,      out,           TV_WEIGHT_IN_OUT, weight.data(),
                               nullptr, weight.data(), nullptr,          0};
};

TEST(Exposed, ScatteredSumBehindARowMatrix)
{
    expect_at_most_half(1, [](const struct tv_tensor_axis &axis) {
        Buffers b;
        ASSERT_OK(tv_row_linear_forward(&axis, &b.linear, rows, b.x.data(), in, b.room.data(),
                                        b.y.data()));
    });
}

TEST(Exposed, GatherBeforeAColumnMatrix)
{
    expect_at_most_half(1, [](const struct tv_tensor_axis &axis) {
        Buffers b;
        struct tv_row_gather gather;
        ASSERT_OK(tv_row_gather_start(&axis, rows, out, b.x.data(), b.room.data(), &gather));
        for (int i = 0; i < gather.num_parts; i++) {
            struct tv_row_shard part;
            ASSERT_OK(tv_row_gather_next(&gather, &part));
            for (int matrix = 0; matrix < 2; matrix++)
                ASSERT_OK(tv_column_linear_forward(&axis, &b.linear, part.num, b.x.data(),
                                                   b.y.data(), out));
        }
    });
}

TEST(Exposed, SumBehindWeightGradients)
{
    for (const int is_sequence_parallel : {0, 1})
        expect_at_most_half(is_sequence_parallel, [](const struct tv_tensor_axis &axis) {
            Buffers b;
            struct tv_request *sum = nullptr;
            ASSERT_OK(tv_tensor_sum_rows_start(&axis, rows, out, b.x.data(), b.room.data(), &sum));
            for (int matrix = 0; matrix < 2; matrix++)
                ASSERT_OK(tv_column_linear_backward_weight(&axis, &b.linear, rows, b.y.data(),
                                                           b.y.data(), out));
            ASSERT_OK(tv_request_wait(&sum));
        });
}

} // namespace
