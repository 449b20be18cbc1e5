// nccl.cc -- the double of NCCL: communicators of threads, operations that run when their stream does and their peers
// have come. See include/nccl.h for what it checks.
#include "emulation/emulation.h"
#include "emulation/nccl_sums.h"
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <nccl.h>
#include <unistd.h>

namespace
{
enum Kind { ALL_REDUCE, REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, SEND, RECV, SPLIT };
const char *const names[] = {"all_reduce", "reduce", "reduce_scatter", "all_gather",
                             "broadcast",  "send",   "receive",        "split"};

size_t bytes_of(ncclDataType_t type)
{
    switch (type) {
    case ncclUint8:
        return 1;
    case ncclBfloat16:
        return 2;
    case ncclInt32:
    case ncclFloat32:
        return 4;
    default:
        return 8;
    }
}

struct Op {
    Kind kind;
    const void *send;
    void *recv;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t reduction;
    int root;                 // or the peer
    size_t place = 0, of = 1; // in its group

    bool is_message() const
    {
        return kind == SEND || kind == RECV;
    }
    std::string text() const
    {
        return std::string(names[kind]) + " (count " + std::to_string(count) + ", type " +
               std::to_string(type) + ", reduction " + std::to_string(reduction) + ", root " +
               std::to_string(root) + ", " + std::to_string(place + 1) + " of " +
               std::to_string(of) + " in its group)";
    }
};

// What ranks have brought to one collective, or one message.
struct Meeting {
    std::map<int, std::vector<char>> brought;
    size_t taken = 0;
};

struct Split {
    std::map<int, std::pair<int, int>> asked; // by rank: color, key
    std::map<int, std::shared_ptr<struct Group>> made;
};

struct Group {
    explicit Group(int size_in) : size(size_in)
    {
    }
    const int size;
    std::mutex lock;
    int joined = 0;
    std::string error;
    std::map<size_t, std::pair<int, std::string>> issued; // by number: the first rank's word
    std::map<size_t, int> num_issued;
    std::map<size_t, Meeting> meetings;
    std::map<std::vector<size_t>, std::string> letters; // by from, to, number: the first end's word
    std::map<std::vector<size_t>, Meeting> messages;
    std::map<size_t, Split> splits;
};

// One rank's end; operations in streams outlive the handle.
struct Member {
    std::shared_ptr<Group> group;
    int rank = 0;
    bool is_aborted = false;
    size_t num_collectives = 0, num_splits = 0; // issued
    std::map<int, size_t> num_sent, num_received;
    size_t num_launched = 0, num_done = 0; // groups of operations
    ncclComm_t *made = nullptr;            // of a split under way
};

// One operation with its number, and whether this rank has brought its part and is done.
struct Part {
    Op op;
    size_t number;
    bool is_brought = false, is_done = false;
};

std::mutex registry_lock;
std::map<std::string, std::shared_ptr<Group>> registry; // by unique id
thread_local int depth;
struct Waiting {
    ncclComm_t comm;
    cudaStream_t stream;
    Op op;
};
thread_local std::vector<Waiting> waiting;
} // namespace

struct ncclComm {
    std::shared_ptr<Member> member;
};

namespace
{
// ---- the rules ----

void agree(Group &group, int rank, size_t number, const std::string &word)
{
    const auto [first, is_first] = group.issued.insert({number, {rank, word}});
    if (!is_first && first->second.second != word && group.error.empty())
        group.error = "operation " + std::to_string(number + 1) + " of the communicator: rank " +
                      std::to_string(rank) + " issues " + word + ", rank " +
                      std::to_string(first->second.first) + " " + first->second.second;
    if (++group.num_issued[number] == group.size) {
        group.issued.erase(number);
        group.num_issued.erase(number);
    }
}

std::vector<size_t> letter_of(const Part &part, int rank)
{
    const int from = part.op.kind == SEND ? rank : part.op.root;
    const int to = part.op.kind == SEND ? part.op.root : rank;
    return {(size_t)from, (size_t)to, part.number};
}

void agree_on_letter(Group &group, int rank, const Part &part)
{
    const std::string word =
        std::to_string(part.op.count) + " elements of type " + std::to_string(part.op.type);
    const auto key = letter_of(part, rank);
    const auto [first, is_first] = group.letters.insert({key, word});
    if (!is_first && first->second != word && group.error.empty())
        group.error = "message " + std::to_string(part.number + 1) + " from rank " +
                      std::to_string(key[0]) + " to rank " + std::to_string(key[1]) +
                      ": one end has " + word + ", the other " + first->second;
    if (!is_first)
        group.letters.erase(first);
}

void check_memory(Group &group, const Op &op)
{
    for (const void *data : {op.send, static_cast<const void *>(op.recv)}) {
        if (data != nullptr && op.count > 0 && !emulation::is_device_memory(data) &&
            group.error.empty())
            group.error = std::string(names[op.kind]) + ": its data is not on the device";
    }
}

// This rank's result of a collective to which all have come.
void take_result(const Meeting &meeting, const Op &op, int rank)
{
    const size_t bytes = op.count * bytes_of(op.type);
    if (op.kind == ALL_REDUCE || (op.kind == REDUCE && rank == op.root))
        emulation::add_up({meeting.brought, 0, op.count, op.type, op.reduction}, op.recv);
    else if (op.kind == REDUCE_SCATTER)
        emulation::add_up(
            {meeting.brought, (size_t)rank * op.count, op.count, op.type, op.reduction}, op.recv);
    else if (op.kind == BROADCAST)
        std::memcpy(op.recv, meeting.brought.at(op.root).data(), bytes);
    for (const auto &[from, data] : meeting.brought) {
        if (op.kind == ALL_GATHER)
            std::memcpy(static_cast<char *>(op.recv) + (size_t)from * bytes, data.data(), bytes);
    }
}

// ---- running ----

std::vector<char> what_is_sent(const Op &op, int rank, int size)
{
    if (op.kind == BROADCAST && rank != op.root)
        return {};
    const size_t bytes =
        op.count * bytes_of(op.type) * (op.kind == REDUCE_SCATTER ? (size_t)size : 1);
    const char *from = static_cast<const char *>(op.send);
    return {from, from + bytes};
}

// All under the group's lock, with device memory open.
void run_collective(Member &member, Part &part)
{
    Group &group = *member.group;
    Meeting &meeting = group.meetings[part.number];
    if (!part.is_brought)
        meeting.brought[member.rank] = what_is_sent(part.op, member.rank, group.size);
    part.is_brought = true;
    if ((int)meeting.brought.size() < group.size)
        return;
    take_result(meeting, part.op, member.rank);
    part.is_done = true;
    if ((int)++meeting.taken == group.size)
        group.meetings.erase(part.number);
}

// The sender brings the letter; it is done when the receiver has taken it.
void run_message(Member &member, Part &part)
{
    auto &messages = member.group->messages;
    const auto key = letter_of(part, member.rank);
    if (part.op.kind == SEND) {
        if (!part.is_brought)
            messages[key].brought[0] = what_is_sent(part.op, member.rank, 1);
        part.is_brought = true;
        part.is_done = messages[key].taken > 0;
        if (part.is_done)
            messages.erase(key);
    } else if (messages.count(key) > 0 && !messages[key].brought.empty()) {
        Meeting &meeting = messages[key];
        std::memcpy(part.op.recv, meeting.brought[0].data(), meeting.brought[0].size());
        meeting.taken = 1;
        part.is_done = true;
    }
}

// A launch: the operations of a group on one communicator, which progress together; after the launches before it.
bool run(Member &member, size_t number, std::vector<Part> &parts)
{
    const emulation::DeviceAccess access;
    const std::lock_guard<std::mutex> hold(member.group->lock);
    if (member.is_aborted || !member.group->error.empty())
        return true; // moves nothing
    if (member.num_done != number)
        return false;
    bool is_done = true;
    for (Part &part : parts) {
        if (!part.is_done)
            part.op.is_message() ? run_message(member, part) : run_collective(member, part);
        is_done &= part.is_done;
    }
    member.num_done += is_done;
    return is_done;
}

void launch(ncclComm_t comm, cudaStream_t stream, std::vector<Op> ops)
{
    const std::shared_ptr<Member> member = comm->member;
    Group &group = *member->group;
    std::vector<Part> parts;
    std::string what = "nccl";
    size_t number;
    {
        const std::lock_guard<std::mutex> hold(group.lock);
        for (size_t i = 0; i < ops.size(); i++) {
            Op &op = ops[i];
            what += std::string(" ") + names[op.kind];
            op.place = op.is_message() ? 0 : i;
            op.of = op.is_message() ? 1 : ops.size();
            check_memory(group, op);
            auto &count = op.kind == SEND   ? member->num_sent[op.root]
                          : op.kind == RECV ? member->num_received[op.root]
                                            : member->num_collectives;
            parts.push_back({op, count++});
            if (op.is_message())
                agree_on_letter(group, member->rank, parts.back());
            else
                agree(group, member->rank, parts.back().number, op.text());
        }
        number = member->num_launched++;
    }
    emulation::enqueue(stream, what, [member, number, parts = std::move(parts)]() mutable {
        return run(*member, number, parts);
    });
}

ncclResult_t issue(ncclComm_t comm, cudaStream_t stream, const Op &op)
{
    if (comm == nullptr || op.root < 0 || op.root >= comm->member->group->size)
        return ncclInvalidArgument;
    if (depth > 0)
        waiting.push_back({comm, stream, op});
    else
        launch(comm, stream, {op});
    return ncclSuccess;
}

// ---- groups ----

void finish_split(Member &member)
{
    Group &group = *member.group;
    Split &split = group.splits[member.num_splits - 1];
    if (member.made == nullptr || (int)split.asked.size() < group.size)
        return;
    const auto [color, key] = split.asked[member.rank];
    std::vector<std::pair<int, int>> order; // key, rank
    for (const auto &[rank, asked] : split.asked)
        if (asked.first == color)
            order.push_back({asked.second, rank});
    std::sort(order.begin(), order.end());
    *member.made = nullptr;
    if (color != NCCL_SPLIT_NOCOLOR) {
        std::shared_ptr<Group> &made = split.made[color];
        if (made == nullptr)
            made = std::make_shared<Group>((int)order.size());
        const auto place = std::find(order.begin(), order.end(), std::pair(key, member.rank));
        *member.made = new ncclComm{std::make_shared<Member>()};
        (*member.made)->member->group = made;
        (*member.made)->member->rank = (int)(place - order.begin());
        const std::lock_guard<std::mutex> hold(made->lock);
        made->joined++;
    }
    member.made = nullptr;
}
} // namespace

extern "C" {
const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {"no error",       "unhandled cuda error", "system error",
                                        "internal error", "invalid argument",     "invalid usage",
                                        "remote error",   "in progress"};
    return texts[result];
}

const char *ncclGetLastError(ncclComm_t comm)
{
    static thread_local std::string error;
    if (comm == nullptr)
        return "";
    const std::lock_guard<std::mutex> hold(comm->member->group->lock);
    error = comm->member->group->error;
    return error.c_str();
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int num;
    const std::lock_guard<std::mutex> hold(registry_lock);
    *id = {};
    snprintf(id->internal, sizeof(id->internal), "emulated NCCL of process %d, number %d",
             (int)getpid(), ++num);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    int pid = 0;
    if (config->blocking != 0 || sscanf(id.internal, "emulated NCCL of process %d", &pid) != 1)
        return ncclInvalidArgument;
    if (pid != (int)getpid()) // the double joins threads only
        return ncclSystemError;
    const std::lock_guard<std::mutex> hold(registry_lock);
    std::shared_ptr<Group> &group = registry[id.internal];
    if (group == nullptr)
        group = std::make_shared<Group>(nranks);
    if (group->size != nranks)
        return ncclInvalidArgument;
    *comm = new ncclComm{std::make_shared<Member>()};
    (*comm)->member->group = group;
    (*comm)->member->rank = rank;
    const std::lock_guard<std::mutex> join(group->lock);
    group->joined++;
    return ncclInProgress;
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *made,
                           ncclConfig_t *config)
{
    if (comm == nullptr || config->blocking != 0)
        return ncclInvalidArgument;
    Member &member = *comm->member;
    const std::lock_guard<std::mutex> hold(member.group->lock);
    agree(*member.group, member.rank, member.num_collectives++, names[SPLIT]);
    member.group->splits[member.num_splits++].asked[member.rank] = {color, key};
    member.made = made;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    if (comm == nullptr)
        return ncclInvalidArgument;
    Member &member = *comm->member;
    const std::lock_guard<std::mutex> hold(member.group->lock);
    if (member.made != nullptr)
        finish_split(member);
    *state = !member.group->error.empty() ? ncclInvalidUsage
             : member.group->joined < member.group->size || member.made != nullptr ? ncclInProgress
                                                                                   : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    const std::lock_guard<std::mutex> hold(comm->member->group->lock);
    return comm->member->num_done == comm->member->num_launched ? ncclSuccess : ncclInvalidUsage;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    {
        const std::lock_guard<std::mutex> hold(comm->member->group->lock);
        comm->member->is_aborted = true;
    }
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart()
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd()
{
    if (--depth > 0)
        return ncclSuccess;
    while (!waiting.empty()) {
        const Waiting first = waiting.front();
        std::vector<Op> ops;
        std::vector<Waiting> others;
        for (const Waiting &each : waiting) {
            if (each.comm == first.comm && each.stream == first.stream)
                ops.push_back(each.op);
            else
                others.push_back(each);
        }
        launch(first.comm, first.stream, ops);
        waiting = others;
    }
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, stream, {ALL_REDUCE, send, recv, count, type, op, 0});
}

ncclResult_t ncclReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, stream, {REDUCE, send, recv, count, type, op, root});
}

ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, stream, {REDUCE_SCATTER, send, recv, count, type, op, 0});
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, stream, {ALL_GATHER, send, recv, count, type, ncclSum, 0});
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, stream, {BROADCAST, send, recv, count, type, ncclSum, root});
}

ncclResult_t ncclSend(const void *send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return issue(comm, stream, {SEND, send, nullptr, count, type, ncclSum, peer});
}

ncclResult_t ncclRecv(void *recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return issue(comm, stream, {RECV, nullptr, recv, count, type, ncclSum, peer});
}
}
