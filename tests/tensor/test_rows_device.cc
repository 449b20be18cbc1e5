// Rows of GPUs: what goes round the ring of a tensor axis goes over NCCL, all of it, and arrives (emulated device).
#include "emulation/emulation.h"
#include "mesh/device_contract.h"
#include "tensor/tensor.h"
#include <algorithm>

namespace
{
enum { ROWS = 8, COLS = 3 };

float value_of(int index)
{
    return 1.0f + (float)index;
}

void gather_rows(struct tv_comm *comm, bool is_overlapped)
{
    const struct tv_kernels *kernels = nullptr;
    ASSERT_OK(tv_kernels_open(device_place.device, TV_F32, &kernels));
    const struct tv_tensor_axis axis = {comm, device_place.stream, kernels, 1, is_overlapped, 0};
    const struct tv_row_shard own = tv_tensor_own_rows(&axis, ROWS);
    std::vector<float> rows((size_t)own.num * COLS), all((size_t)ROWS * COLS);
    for (size_t i = 0; i < rows.size(); i++)
        rows[i] = value_of((int)own.first * COLS + (int)i);
    struct tv_buffer room = {};
    struct tv_row_gather gather;
    ASSERT_OK(
        tv_buffer_create(device_place.device, sizeof(float) * all.size(), TV_MEM_BUFFERS, &room));
    float *const place = static_cast<float *>(room.data) + own.first * COLS;
    ASSERT_OK(tv_stream_copy(device_place.stream, place, rows.data(), sizeof(float) * rows.size()));
    ASSERT_OK(tv_comm_barrier(comm));
    if (tv_comm_rank(comm) == 0)
        emulation::start_record();
    ASSERT_OK(tv_comm_barrier(comm));
    ASSERT_OK(tv_row_gather_start(&axis, ROWS, COLS, place, room.data, &gather));
    ASSERT_OK(tv_row_gather_finish(&gather));
    ASSERT_OK(
        tv_stream_copy(device_place.stream, all.data(), room.data, sizeof(float) * all.size()));
    ASSERT_OK(tv_stream_synchronize(device_place.stream));
    for (size_t i = 0; i < all.size(); i++)
        EXPECT_EQ(all[i], value_of((int)i)) << "element " << i;
    ASSERT_OK(tv_comm_barrier(comm));
    tv_buffer_destroy(&room);
}
} // namespace

TEST(RowsOfGpus, GoRoundTheRingOverNccl)
{
    for (int T : {2, 4}) {
        for (bool is_overlapped : {false, true}) {
            SCOPED_TRACE(T);
            emulation::settings().gpus = T;
            std::vector<emulation::Entry> record;
            run_device_threads(T, true, [&](struct tv_comm *comm) {
                gather_rows(comm, is_overlapped);
                if (tv_comm_rank(comm) == 0)
                    record = emulation::take_record();
            });
            const auto count = [&](const char *what) {
                return std::count_if(record.begin(), record.end(),
                                     [&](const emulation::Entry &e) { return e.what == what; });
            };
            EXPECT_EQ(count("nccl send"), T * (T - 1));
            EXPECT_EQ(count("nccl receive"), T * (T - 1));
            EXPECT_EQ(count("copy"), T); // what the test looks at
        }
    }
}
