/* mesh/comm_nccl_cuda.cu -- the table of nccl_internal.h over NCCL; built into libtrivet_cuda.so, never
 * into libtrivet.
 *
 * Communicators are non-blocking: a peer that does not come shows as one that is never ready, and the
 * caller gives up. Pieces of uneven sizes are a group of broadcasts or of reductions, one with each rank
 * as the root.
 *
 * Bits: NCCL adds in the order of the ring or tree that it found for the machine, and rounds a bf16 sum
 * at each hop, so its sums differ from those of the host in the last bits. The same ranks on the same
 * GPUs repeat their bits for a given NCCL, except where the switch adds (NVLS; NVIDIA/nccl#1497): that
 * is off unless the environment asks for it. */
#include "mesh/nccl_internal.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime.h>
#include <nccl.h>

namespace
{
/* `comm` may be NULL; NCCL's last sentence says more than its code. */
tv_status_t check(ncclResult_t result, ncclComm_t comm, const char *what, char *message)
{
    if (result == ncclSuccess || result == ncclInProgress)
        return TV_OK;
    const char *more = ncclGetLastError(comm);
    snprintf(message, TV_NCCL_MESSAGE, "%s: %s%s%.150s", what, ncclGetErrorString(result),
             more != nullptr && more[0] != '\0' ? "; " : "", more != nullptr ? more : "");
    return result == ncclSystemError || result == ncclRemoteError ? TV_PEER : TV_INTERNAL;
}

/* What an operator may change, unless the environment has said so already; read by NCCL when it first runs. */
void prefer(const char *variable, const char *value)
{
    setenv(variable, value, 0);
}

tv_status_t unique_id(char *id_out, char *message)
{
    static_assert(TV_NCCL_ID_BYTES == sizeof(ncclUniqueId), "the id is copied as it is");
    ncclUniqueId id;
    prefer("NCCL_NVLS_ENABLE", "0");
    const tv_status_t status = check(ncclGetUniqueId(&id), nullptr, "ncclGetUniqueId", message);
    if (status == TV_OK)
        memcpy(id_out, id.internal, sizeof(id.internal));
    return status;
}

tv_status_t open(const char *id, int rank, int size, void **comm_out, char *message)
{
    ncclUniqueId unique;
    ncclComm_t comm = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    prefer("NCCL_NVLS_ENABLE", "0");
    /* Connections are made with the communicator, not in its first operation, which would wait for peers. */
    prefer("NCCL_RUNTIME_CONNECT", "0");
    config.blocking = 0;
    memcpy(unique.internal, id, sizeof(unique.internal));
    const ncclResult_t result = ncclCommInitRankConfig(&comm, size, unique, rank, &config);
    *comm_out = comm;
    return check(result, nullptr, "ncclCommInitRankConfig", message);
}

tv_status_t split(void *comm, int color, int key, int num_channels, void **made_out, char *message)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (num_channels > 0)
        config.maxCTAs = num_channels;
    const ncclResult_t result =
        ncclCommSplit(static_cast<ncclComm_t>(comm), color < 0 ? NCCL_SPLIT_NOCOLOR : color, key,
                      reinterpret_cast<ncclComm_t *>(made_out), &config);
    return check(result, static_cast<ncclComm_t>(comm), "ncclCommSplit", message);
}

tv_status_t ready(void *comm, int *ready_out, char *message)
{
    ncclResult_t state = ncclSuccess;
    const tv_status_t status =
        check(ncclCommGetAsyncError(static_cast<ncclComm_t>(comm), &state),
              static_cast<ncclComm_t>(comm), "ncclCommGetAsyncError", message);
    if (status != TV_OK)
        return status;
    *ready_out = state == ncclSuccess;
    return check(state, static_cast<ncclComm_t>(comm), "NCCL", message);
}

ncclDataType_t type_of(tv_dtype_t dtype)
{
    switch (dtype) {
    case TV_F32:
        return ncclFloat32;
    case TV_F64:
        return ncclFloat64;
    case TV_I32:
        return ncclInt32;
    case TV_I64:
        return ncclInt64;
    case TV_BF16:
        return ncclBfloat16;
    case TV_U8:
        break;
    }
    return ncclUint8;
}

ncclRedOp_t reduction_of(tv_reduce_op_t op)
{
    return op == TV_SUM ? ncclSum : op == TV_MAX ? ncclMax : ncclMin;
}

const char *piece(const void *data, int64_t first, tv_dtype_t dtype)
{
    return static_cast<const char *>(data) + first * (int64_t)tv_dtype_bytes(dtype);
}

/* One broadcast or reduction per rank with a piece; the group makes them one launch. */
ncclResult_t enqueue_pieces(ncclComm_t comm, const tv_nccl_call *c, cudaStream_t stream)
{
    const ncclDataType_t type = type_of(c->dtype);
    ncclResult_t result = ncclGroupStart();
    int64_t first = 0;
    for (int r = 0; r < c->size && result == ncclSuccess; first += c->counts[r++]) {
        const size_t count = (size_t)c->counts[r];
        if (count > 0 && c->op == TV_OP_ALL_GATHER) {
            char *place = const_cast<char *>(piece(c->recv, first, c->dtype));
            result =
                ncclBroadcast(r == c->rank ? c->send : place, place, count, type, r, comm, stream);
        } else if (count > 0) {
            result = ncclReduce(piece(c->send, first, c->dtype), r == c->rank ? c->recv : nullptr,
                                count, type, reduction_of(c->reduce), r, comm, stream);
        }
    }
    const ncclResult_t end = ncclGroupEnd();
    return result != ncclSuccess ? result : end;
}

ncclResult_t enqueue_even(ncclComm_t comm, const tv_nccl_call *c, cudaStream_t stream)
{
    const ncclDataType_t type = type_of(c->dtype);
    const size_t count = (size_t)c->count;
    switch (c->op) {
    case TV_OP_SEND:
        return ncclSend(c->send, count, type, c->root, comm, stream);
    case TV_OP_RECV:
        return ncclRecv(c->recv, count, type, c->root, comm, stream);
    case TV_OP_ALL_REDUCE:
        return ncclAllReduce(c->send, c->recv, count, type, reduction_of(c->reduce), comm, stream);
    case TV_OP_REDUCE_SCATTER:
        return ncclReduceScatter(c->send, c->recv, count, type, reduction_of(c->reduce), comm,
                                 stream);
    case TV_OP_ALL_GATHER:
        return ncclAllGather(c->send, c->recv, count, type, comm, stream);
    case TV_OP_BROADCAST:
        break;
    }
    return ncclBroadcast(c->send, c->recv, count, type, c->root, comm, stream);
}

tv_status_t enqueue(void *comm, const tv_nccl_call *call, void *stream, char *message)
{
    ncclComm_t nccl = static_cast<ncclComm_t>(comm);
    cudaStream_t cuda = static_cast<cudaStream_t>(stream);
    const ncclResult_t result =
        call->counts != nullptr ? enqueue_pieces(nccl, call, cuda) : enqueue_even(nccl, call, cuda);
    return check(result, nccl, "NCCL", message);
}

tv_status_t finalize(void *comm, char *message)
{
    ncclComm_t nccl = static_cast<ncclComm_t>(comm);
    return check(ncclCommFinalize(nccl), nccl, "ncclCommFinalize", message);
}

void destroy(void *comm)
{
    ncclCommDestroy(static_cast<ncclComm_t>(comm));
}

/* Together, since what one waits for on the GPU may be behind another. */
void abort_all(void *const *comms, int num)
{
    ncclGroupStart();
    for (int i = 0; i < num; i++)
        ncclCommAbort(static_cast<ncclComm_t>(comms[i]));
    ncclGroupEnd();
}

const tv_nccl_table table = {unique_id, open, split, ready, enqueue, finalize, destroy, abort_all};
} // namespace

extern "C" const void *tv_nccl_cuda_table(void)
{
    return &table;
}
