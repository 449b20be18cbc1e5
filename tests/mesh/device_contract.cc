/* tests/mesh/device_contract.cc -- host memory to the device and back around each operation. */
#include "mesh/device_contract.h"
#include <map>
#include <numeric>

thread_local DevicePlace device_place;

namespace
{
/* A side of an operation: host memory, and the device memory that stands for it. */
struct Side {
    const void *host = nullptr;
    int64_t bytes = 0;
    struct tv_buffer buffer = {};
    char *data = nullptr; /* in `buffer`, or inside the other side's */
};

struct Pending {
    Side send, recv;
    void *back_to = nullptr;
};
thread_local std::map<struct tv_request *, Pending> pending;
thread_local std::vector<struct tv_buffer> unused;

/* Can the library be meant to run it? Refused arguments go there as they are. */
bool is_sane(int64_t count, tv_dtype_t dtype)
{
    return count >= 0 && count < (1 << 28) && dtype <= TV_U8;
}

bool is_inside(const Side &inner, const Side &outer)
{
    const auto a = (uintptr_t)inner.host, b = (uintptr_t)outer.host;
    return inner.bytes > 0 && a >= b && a + (uintptr_t)inner.bytes <= b + (uintptr_t)outer.bytes;
}

void make(Side &side)
{
    if (side.bytes == 0)
        return;
    ASSERT_OK(
        tv_buffer_create(device_place.device, (size_t)side.bytes, TV_MEM_BUFFERS, &side.buffer));
    side.data = static_cast<char *>(side.buffer.data);
    ASSERT_OK(tv_stream_copy(device_place.stream, side.data, side.host, (size_t)side.bytes));
}

/* The larger one first: the other may lie in it. */
Pending prepare(const void *send, int64_t send_bytes, void *recv, int64_t recv_bytes)
{
    Pending p;
    p.send.host = send;
    p.send.bytes = send_bytes;
    p.recv.host = recv;
    p.recv.bytes = recv_bytes;
    p.back_to = recv;
    Side &outer = send_bytes > recv_bytes ? p.send : p.recv;
    Side &inner = send_bytes > recv_bytes ? p.recv : p.send;
    make(outer);
    if (is_inside(inner, outer))
        inner.data = outer.data + ((const char *)inner.host - (const char *)outer.host);
    else
        make(inner);
    return p;
}

/* Freeing device memory waits for the whole GPU: only when no message is under way, which may wait for a peer. */
void drop(Pending &p)
{
    unused.push_back(p.send.buffer);
    unused.push_back(p.recv.buffer);
    if (!pending.empty())
        return;
    for (struct tv_buffer &buffer : unused)
        tv_buffer_destroy(&buffer);
    unused.clear();
}

tv_status_t keep(tv_status_t status, Pending &p, struct tv_request **request)
{
    if (status == TV_OK)
        pending[*request] = p;
    else
        drop(p);
    return status;
}

/* What came goes to the host. */
tv_status_t bring_back(struct tv_request *request, tv_status_t status)
{
    Pending p = pending[request];
    pending.erase(request);
    if (status == TV_OK && p.recv.bytes > 0)
        status = tv_stream_copy(device_place.stream, p.back_to, p.recv.data, (size_t)p.recv.bytes);
    if (status == TV_OK)
        status = tv_stream_synchronize(device_place.stream);
    drop(p);
    return status;
}

int64_t size_of(tv_dtype_t dtype)
{
    return (int64_t)tv_dtype_bytes(dtype);
}

int64_t total_of(struct tv_comm *comm, const int64_t *counts)
{
    return std::accumulate(counts, counts + tv_comm_size(comm), (int64_t)0);
}

bool are_sane(struct tv_comm *comm, const int64_t *counts, tv_dtype_t dtype)
{
    bool sane = true;
    for (int r = 0; r < tv_comm_size(comm); r++)
        sane = sane && is_sane(counts[r], dtype);
    return sane;
}

void run_one(struct tv_comm *world, bool uses_nccl, const RankBody &body)
{
    struct tv_comm *copy = nullptr;
    const struct tv_gpu_choice own = {
        .pci = "", .index = tv_comm_rank(world), .num_threads = 0, .uses_tf32 = 0};
    ASSERT_OK(tv_device_open_gpu(&own, &device_place.device));
    ASSERT_OK(tv_stream_create(device_place.device, &device_place.stream));
    ASSERT_OK(tv_comm_split(world, 0, tv_comm_rank(world), &copy));
    tv_comm_set_timeout(copy, 60);
    if (uses_nccl) {
        ASSERT_OK(tv_comm_use_nccl(copy, device_place.device));
        ASSERT_OK(tv_comm_use_nccl_messages(copy, TV_TO_NEXT | TV_TO_PREVIOUS));
    }
    body(copy);
    if (testing::Test::HasFailure()) /* before a peer waits for what will not come */
        tv_comm_abort(world, 1);
    tv_comm_destroy(copy);
    while (!pending.empty()) { /* what a failure left */
        Pending p = pending.begin()->second;
        pending.erase(pending.begin());
        drop(p);
    }
    tv_stream_destroy(device_place.stream);
    tv_device_close(device_place.device);
}
} // namespace

void run_device_threads(int size, bool uses_nccl, const RankBody &body)
{
    run_threads(size, [&](struct tv_comm *world) { run_one(world, uses_nccl, body); });
}

tv_status_t device_split(struct tv_comm *comm, int color, int key, struct tv_comm **comm_out)
{
    const tv_status_t status = tv_comm_split(comm, color, key, comm_out);
    if (status != TV_OK || *comm_out == nullptr)
        return status;
    return tv_comm_use_nccl_messages(*comm_out, TV_TO_NEXT | TV_TO_PREVIOUS);
}

tv_status_t device_all_reduce(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                              tv_reduce_op_t op, struct tv_stream *,
                              struct tv_request **request_out)
{
    if (!is_sane(count, dtype))
        return tv_comm_all_reduce(comm, buffer, count, dtype, op, device_place.stream, request_out);
    Pending p = prepare(nullptr, 0, buffer, count * size_of(dtype));
    return keep(
        tv_comm_all_reduce(comm, p.recv.data, count, dtype, op, device_place.stream, request_out),
        p, request_out);
}

tv_status_t device_reduce_scatter(struct tv_comm *comm, const void *send, void *recv, int64_t count,
                                  tv_dtype_t dtype, tv_reduce_op_t op, struct tv_stream *,
                                  struct tv_request **request_out)
{
    if (!is_sane(count, dtype))
        return tv_comm_reduce_scatter(comm, send, recv, count, dtype, op, device_place.stream,
                                      request_out);
    const int64_t bytes = count * size_of(dtype);
    Pending p = prepare(send, bytes * tv_comm_size(comm), recv, bytes);
    return keep(tv_comm_reduce_scatter(comm, p.send.data, p.recv.data, count, dtype, op,
                                       device_place.stream, request_out),
                p, request_out);
}

tv_status_t device_all_gather(struct tv_comm *comm, const void *send, void *recv, int64_t count,
                              tv_dtype_t dtype, struct tv_stream *, struct tv_request **request_out)
{
    if (!is_sane(count, dtype))
        return tv_comm_all_gather(comm, send, recv, count, dtype, device_place.stream, request_out);
    const int64_t bytes = count * size_of(dtype);
    Pending p = prepare(send, bytes, recv, bytes * tv_comm_size(comm));
    return keep(tv_comm_all_gather(comm, p.send.data, p.recv.data, count, dtype,
                                   device_place.stream, request_out),
                p, request_out);
}

tv_status_t device_reduce_scatter_v(struct tv_comm *comm, const void *send, void *recv,
                                    const int64_t *counts, tv_dtype_t dtype, struct tv_stream *,
                                    struct tv_request **request_out)
{
    if (!are_sane(comm, counts, dtype))
        return tv_comm_reduce_scatter_v(comm, send, recv, counts, dtype, device_place.stream,
                                        request_out);
    Pending p = prepare(send, total_of(comm, counts) * size_of(dtype), recv,
                        counts[tv_comm_rank(comm)] * size_of(dtype));
    return keep(tv_comm_reduce_scatter_v(comm, p.send.data, p.recv.data, counts, dtype,
                                         device_place.stream, request_out),
                p, request_out);
}

tv_status_t device_all_gather_v(struct tv_comm *comm, const void *send, void *recv,
                                const int64_t *counts, tv_dtype_t dtype, struct tv_stream *,
                                struct tv_request **request_out)
{
    if (!are_sane(comm, counts, dtype))
        return tv_comm_all_gather_v(comm, send, recv, counts, dtype, device_place.stream,
                                    request_out);
    Pending p = prepare(send, counts[tv_comm_rank(comm)] * size_of(dtype), recv,
                        total_of(comm, counts) * size_of(dtype));
    return keep(tv_comm_all_gather_v(comm, p.send.data, p.recv.data, counts, dtype,
                                     device_place.stream, request_out),
                p, request_out);
}

tv_status_t device_broadcast(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                             int root, struct tv_stream *, struct tv_request **request_out)
{
    if (!is_sane(count, dtype))
        return tv_comm_broadcast(comm, buffer, count, dtype, root, device_place.stream,
                                 request_out);
    Pending p = prepare(nullptr, 0, buffer, count * size_of(dtype));
    return keep(
        tv_comm_broadcast(comm, p.recv.data, count, dtype, root, device_place.stream, request_out),
        p, request_out);
}

tv_status_t device_send(struct tv_comm *comm, const void *buffer, int64_t count, tv_dtype_t dtype,
                        int peer, struct tv_stream *, struct tv_request **request_out)
{
    Pending p = prepare(buffer, count * size_of(dtype), nullptr, 0);
    return keep(
        tv_comm_send(comm, p.send.data, count, dtype, peer, device_place.stream, request_out), p,
        request_out);
}

tv_status_t device_recv(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                        int peer, struct tv_stream *, struct tv_request **request_out)
{
    Pending p = prepare(nullptr, 0, buffer, count * size_of(dtype));
    return keep(
        tv_comm_recv(comm, p.recv.data, count, dtype, peer, device_place.stream, request_out), p,
        request_out);
}

tv_status_t device_test(struct tv_request **request, int *done_out)
{
    struct tv_request *before = *request;
    const tv_status_t status = tv_request_test(request, done_out);
    return before != nullptr && *request == nullptr ? bring_back(before, status) : status;
}

tv_status_t device_wait(struct tv_request **request)
{
    struct tv_request *before = *request;
    const tv_status_t status = tv_request_wait(request);
    return before != nullptr ? bring_back(before, status) : status;
}

void device_cancel(struct tv_request **request)
{
    struct tv_request *before = *request;
    tv_request_cancel(request);
    if (before != nullptr)
        (void)bring_back(before, TV_PEER);
}

tv_status_t device_all_reduce_now(struct tv_comm *comm, void *buffer, int64_t count,
                                  tv_dtype_t dtype, tv_reduce_op_t op)
{
    struct tv_request *request = nullptr;
    const tv_status_t status = device_all_reduce(comm, buffer, count, dtype, op, nullptr, &request);
    return status == TV_OK ? device_wait(&request) : status;
}

tv_status_t device_broadcast_now(struct tv_comm *comm, void *buffer, int64_t count,
                                 tv_dtype_t dtype, int root)
{
    struct tv_request *request = nullptr;
    const tv_status_t status =
        device_broadcast(comm, buffer, count, dtype, root, nullptr, &request);
    return status == TV_OK ? device_wait(&request) : status;
}
