// --zero-stage inside whole runs, ranks as threads: bytes sent over the data axis, bytes held, copies
// of a tied weight, and memory that does not grow.
#include "train/heap.h"
#include "train/temporary.h"
#include <algorithm>
#include <cstdint>
#include <map>
#include <thread>
#include <vector>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "train/place.h"
#include "train/split.h"
#include "train/trainer_internal.h"
#pragma GCC diagnostic pop

namespace
{
using Words = std::vector<std::string>;
constexpr int64_t element = sizeof(float);

const Words gpt2 = {"--model", "gpt2"}; // tied
const Words untied = {"--model", "llama", "--untie-embeddings-and-output-weights"};

struct Rank {
    tv_mesh_coord here = {};
    int num_micro = 0;
    int64_t params = 0, tied = 0, tied_uses = 0; // elements; units here that use the tied weight
    int64_t head = 0;                            // of params, those of the head alone
    std::vector<int64_t> sent;                   // over the data axis, by step
    std::vector<double> losses, norms;
    std::vector<int64_t> held;                     // by kind, at the end
    std::vector<int64_t> planned;                  // by kind, of the fullest replica
    std::vector<std::pair<size_t, size_t>> memory; // now and peak, by step
    std::vector<size_t> heap;                      // of the process, in use, by step
    std::vector<int64_t> num_buffers;              // of the device, made before a step
    std::map<int64_t, float> tied_piece;           // what this rank has of its copy, by place
    std::vector<char> weights;                     // as they are stored, where all of them are here
};

void look(struct tv_trainer *tr, Rank *rank)
{
    const struct tv_sharding *s = &tr->sharding;
    const int head = tr->run->model.num_layers + 1, p = tr->here.at[TV_PIPE];
    rank->here = tr->here;
    rank->num_micro = tr->run->num_micro;
    rank->params = s->locals.count;
    for (int b = 0; b < s->shards.num_buckets; b++)
        rank->head += s->bucket_units[b].low == head ? s->shards.buckets[b].count : 0;
    for (int kind = 0; kind < TV_NUM_MEM_KINDS; kind++)
        rank->held.push_back((int64_t)tv_device_bytes(tr->device, (tv_mem_kind_t)kind));
    rank->planned.resize(TV_NUM_MEM_KINDS);
    ASSERT_EQ(tv_run_stage_bytes(tr->run, p, rank->planned.data()), TV_OK);
    const char *stored = static_cast<const char *>(tr->weights.data);
    if (tr->weights.is_whole)
        rank->weights.assign(stored,
                             stored + (size_t)s->locals.count * tv_dtype_bytes(tr->weights.dtype));
    for (int i = 0; i < s->locals.num; i++) {
        const struct tv_local_param *local = &s->locals.params[i];
        if (local->param->tied_unit < 0)
            continue;
        rank->tied = local->count;
        rank->tied_uses =
            (tv_run_stage_of_unit(tr->run, 0) == p) + (tv_run_stage_of_unit(tr->run, head) == p);
        for (int k = 0; k < s->num_pieces; k++) {
            const struct tv_owned_piece *piece = &s->pieces[k];
            const float *values = tr->params.data + tv_piece_offset(&tr->params, piece);
            for (int64_t e = 0; piece->local == i && e < piece->count; e++)
                rank->tied_piece[piece->first - local->first + e] = values[e];
        }
    }
}

void train_rank(struct tv_comm *world, const struct tv_train_options *options, int num_steps,
                Rank *rank)
{
    struct tv_run run = {};
    struct tv_trainer *tr = nullptr;
    ASSERT_EQ(tv_run_resolve(options, tv_comm_size(world), &run), TV_OK) << tv_error_message();
    ASSERT_EQ(tv_trainer_create(world, &run, &tr), TV_OK) << tv_error_message();
    for (std::vector<double> *numbers : {&rank->losses, &rank->norms})
        numbers->reserve((size_t)num_steps);
    rank->sent.reserve((size_t)num_steps);
    rank->memory.reserve((size_t)num_steps);
    rank->heap.reserve((size_t)num_steps);
    rank->num_buffers.reserve((size_t)num_steps + 1);
    for (int step = 1; step <= num_steps; step++) {
        struct tv_step_report report = {};
        rank->num_buffers.push_back(tv_device_num_buffers(tr->device));
        ASSERT_EQ(tv_train_step(tr, step, &report), TV_OK) << tv_error_message();
        rank->sent.push_back(tr->account.sent[TV_ACCOUNT_DATA]);
        rank->losses.push_back(report.loss);
        rank->norms.push_back(report.grad_norm);
        rank->memory.emplace_back(tv_device_bytes(tr->device, TV_MEM_BUFFERS),
                                  tv_device_peak_bytes(tr->device));
        ASSERT_EQ(tv_comm_barrier(world), TV_OK); // no rank is inside a step
        rank->heap.push_back(heap_in_use());
        ASSERT_EQ(tv_comm_barrier(world), TV_OK);
    }
    rank->num_buffers.push_back(tv_device_num_buffers(tr->device));
    look(tr, rank);
    tv_trainer_destroy(tr);
    tv_run_free(&run);
}

// A model of four layers on threads.
std::vector<Rank> train(int pp, int dp, int tp, int zero, int num_steps, const Words &more)
{
    Temporary folder;
    std::ofstream file(folder.path("tokens"), std::ios::binary);
    for (int i = 0; i < 4000; i++)
        file.put((char)(i * i % 61 + i % 7)).put(0);
    file.close();
    Words words = {"train",
                   "--data",
                   folder.path("tokens"),
                   "--data-format",
                   "u16",
                   "--threads",
                   "1",
                   "--num-layers",
                   "4",
                   "--hidden-size",
                   "48",
                   "--num-attention-heads",
                   "4",
                   "--ffn-hidden-size",
                   "112",
                   "--vocab-size",
                   "75",
                   "--seq-length",
                   "8",
                   "--global-batch-size",
                   std::to_string(4 * dp),
                   "--train-iters",
                   std::to_string(num_steps),
                   "--pp",
                   std::to_string(pp),
                   "--tp",
                   std::to_string(tp),
                   "--dp",
                   std::to_string(dp),
                   "--zero-stage",
                   std::to_string(zero)};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char *> argv;
    for (std::string &word : words)
        argv.push_back(word.data());
    struct tv_train_options options = {};
    EXPECT_EQ(tv_train_options_parse((int)argv.size(), argv.data(), &options), TV_OK)
        << tv_error_message();
    const size_t size = (size_t)(pp * dp * tp);
    std::vector<Rank> ranks(size);
    std::vector<struct tv_comm *> comms(size);
    EXPECT_EQ(tv_comm_thread_create((int)size, comms.data()), TV_OK);
    std::vector<std::thread> threads;
    for (size_t r = 0; r < size; r++)
        threads.emplace_back([&, r] {
            train_rank(comms[r], &options, num_steps, &ranks[r]);
            if (::testing::Test::HasFatalFailure())
                tv_comm_abort(comms[r], 1);
            tv_comm_destroy(comms[r]);
        });
    for (auto &thread : threads)
        thread.join();
    tv_train_options_free(&options);
    return ranks;
}

// Sums over the replicas of each place in the pipe and tensor axes.
struct Group {
    int64_t sent = 0, state = 0;
    const Rank *one = nullptr;
};

std::vector<Group> groups_of(const std::vector<Rank> &ranks)
{
    std::map<std::pair<int, int>, Group> groups;
    for (const Rank &rank : ranks) {
        Group &group = groups[{rank.here.at[TV_PIPE], rank.here.at[TV_TENSOR]}];
        group.sent += rank.sent.back();
        group.state +=
            rank.held[TV_MEM_PARAMS] + rank.held[TV_MEM_GRADS] + rank.held[TV_MEM_OPTIMIZER];
        group.one = &rank;
    }
    std::vector<Group> all;
    for (const auto &entry : groups)
        all.push_back(entry.second);
    return all;
}

Words operator+(Words a, const Words &b)
{
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

// Bytes of an element: of weights, and of gradients on the data axis.
struct Elements {
    int64_t weight = element, gradient = element;
};

// Bytes that all replicas together send per element of weights in a step of m micro-batches, over
// (D - 1).
int64_t sent_per_element(int zero, int64_t m, bool is_full, Elements e)
{
    switch (zero) {
    case 2:
        return m * e.gradient + e.weight;
    case 3:
        return m * (e.gradient + (is_full ? 3 : 2) * e.weight);
    default:
        return e.gradient + e.weight;
    }
}

// The replicas share in groups of `size`, and two groups at most send the same whatever is small.
void check_bytes(int pp, int dp, int tp, int zero, Words more, bool is_full = false, int size = 0,
                 Elements e = {})
{
    const int groups = size > 0 ? dp / size : 1;
    const int N = dp / groups;
    ASSERT_LE(groups, 2);
    if (size > 0)
        more.insert(more.end(), {"--zero-group-size", std::to_string(size)});
    SCOPED_TRACE("pp " + std::to_string(pp) + " dp " + std::to_string(dp) + " tp " +
                 std::to_string(tp) + " zero " + std::to_string(zero));
    const std::vector<Rank> ranks = train(pp, dp, tp, zero, 2, more);
    for (const Group &group : groups_of(ranks)) {
        const int64_t n = group.one->params, m = group.one->num_micro;
        // From stage 2 on units take turns: a weight of two of them moves for each.
        const int64_t twice = group.one->tied_uses == 2 ? group.one->tied : 0;
        const int64_t gathers = zero == 2 ? m * e.gradient : sent_per_element(zero, m, is_full, e);
        // Inside each group as if it were all; then once the shards' sums over the groups.
        const int64_t inside = (N - 1) * (n * sent_per_element(zero, m, is_full, e) +
                                          (zero >= 2 ? twice * gathers : 0));
        // The head's weights are gathered for its backward alone.
        const int64_t saved =
            zero == 3 ? (N - 1) * m * (is_full ? 2 : 1) * e.weight * (group.one->head + twice) : 0;
        EXPECT_EQ(group.sent, groups * (inside - saved) + 2 * (groups - 1) * n * e.gradient);
        // Optimizer state: two moments, and masters where weights are not fp32 themselves.
        const int64_t w = e.weight, o = 8 + (w < element ? element : 0);
        const int64_t state[] = {(w + 4 + o) * N * n, ((w + 4) * N + o) * n, (w * N + 4 + o) * n,
                                 (w + 4 + o) * n};
        EXPECT_EQ(group.state, groups * state[zero]);
    }
    int64_t most = 0, planned = 0;
    for (const Rank &rank : ranks) {
        int64_t held = 0, plan = 0;
        for (int kind = 0; kind < TV_NUM_MEM_KINDS; kind++) {
            held += rank.held[(size_t)kind];
            plan += rank.planned[(size_t)kind];
        }
        EXPECT_LE(held, plan);
        most = std::max(most, held);
        planned = std::max(planned, plan);
        EXPECT_EQ(rank.norms, ranks[0].norms);
        EXPECT_EQ(rank.losses, ranks[0].losses);
    }
    EXPECT_EQ(most, planned);
}
} // namespace

TEST(Zero, SendsAndHoldsWhatTheFormulasSay)
{
    for (int zero = 1; zero <= 3; zero++) {
        check_bytes(1, 2, 1, zero, untied);
        check_bytes(1, 3, 1, zero, gpt2);
        check_bytes(1, 4, 1, zero, untied + Words{"--recompute", "full"}, true);
        check_bytes(2, 2, 1, zero, gpt2 + Words{"--schedule", "zb-v"});
        check_bytes(2, 3, 1, zero, gpt2 + Words{"--schedule", "zb-h1", "--recompute", "selective"});
        check_bytes(2, 2, 2, zero, gpt2 + Words{"--sequence-parallel"});
    }
}

// 6 + 12/D, 2 + 16/D and 18/D bytes a weight.
TEST(Zero, Bf16SendsAndHoldsWhatTheFormulasSay)
{
    const Words bf16 = {"--precision", "bf16"}, both = bf16 + Words{"--grad-reduce-in-bf16"};
    for (int zero = 1; zero <= 3; zero++) {
        check_bytes(1, 3, 1, zero, gpt2 + bf16, false, 0, {2, 4});
        check_bytes(2, 2, 2, zero, gpt2 + bf16 + Words{"--sequence-parallel"}, false, 0, {2, 4});
        check_bytes(2, 2, 1, zero, untied + both + Words{"--recompute", "full"}, true, 0, {2, 2});
        check_bytes(1, 4, 1, zero, gpt2 + both, false, 2, {2, 2});
    }
}

// Losses, norms and weights of replicas (B09), and one norm of all stages (B12).
TEST(Zero, Bf16ReplicasStayEqual)
{
    for (const Words &how : {Words{"--precision", "bf16"},
                             Words{"--precision", "bf16", "--grad-reduce-dtype", "bf16"}}) {
        double norm = 0;
        for (int zero = 0; zero <= 3; zero++) {
            const std::vector<Rank> ranks = train(1, 3, 1, zero, 10, gpt2 + how);
            norm = zero == 0 ? ranks[0].norms[0] : norm;
            EXPECT_NEAR(ranks[0].norms[0], norm, norm * (zero < 2 ? 1e-12 : 1e-2)) << zero;
            EXPECT_EQ(ranks[0].weights.empty(), zero == 3);
            for (const Rank &rank : ranks) {
                EXPECT_EQ(rank.losses, ranks[0].losses) << zero;
                EXPECT_EQ(rank.norms, ranks[0].norms) << zero;
                EXPECT_EQ(rank.weights, ranks[0].weights) << zero;
            }
        }
    }
}

TEST(Zero, GroupsSendAndHoldWhatTheFormulasSay)
{
    for (int zero = 1; zero <= 3; zero++) {
        check_bytes(1, 4, 1, zero, untied, false, 2);
        check_bytes(1, 6, 1, zero, gpt2 + Words{"--recompute", "full"}, true, 3); // uneven shards
        check_bytes(2, 4, 1, zero, gpt2 + Words{"--schedule", "zb-v"}, false, 2);
        check_bytes(1, 4, 2, zero, gpt2 + Words{"--sequence-parallel", "--no-overlap-grad-reduce"},
                    false, 2);
        check_bytes(1, 2, 1, zero, untied, false, 2);
    }
}

// Replicas own the same shards when their number in their groups of `size` is the same.
void check_copies(int dp, int zero, const Words &more, int size)
{
    const std::vector<Rank> ranks = train(2, dp, 1, zero, 20, gpt2 + more);
    for (const Rank &rank : ranks) {
        const Rank &same = ranks[(size_t)(rank.here.at[TV_DATA] % size)];
        EXPECT_FALSE(rank.tied_piece.empty());
        EXPECT_EQ(rank.tied_piece, same.tied_piece) << "zero " << zero;
    }
}

TEST(Zero, CopiesOfATiedWeightStayEqual)
{
    check_copies(2, 0, {}, 1);
    for (int zero = 1; zero <= 3; zero++) {
        check_copies(2, zero, {}, 2);
        check_copies(4, zero, {"--zero-group-size", "2"}, 2);
        check_copies(2, zero, {"--precision", "bf16"}, 2);
    }
    check_copies(2, 0, {"--precision", "bf16"}, 1);
}

TEST(Zero, OverlapChangesNoBitOfGroups)
{
    for (int zero = 1; zero <= 3; zero++) {
        const Words how = gpt2 + Words{"--zero-group-size", "2", "--schedule", "zb-h1"};
        const std::vector<Rank> early = train(2, 4, 1, zero, 3, how),
                                late = train(2, 4, 1, zero, 3,
                                             how + Words{"--no-overlap-grad-reduce"});
        for (size_t r = 0; r < early.size(); r++) {
            EXPECT_EQ(early[r].losses, late[r].losses);
            EXPECT_EQ(early[r].tied_piece, late[r].tied_piece);
        }
    }
}

TEST(Zero, GroupsOfOneShareNothing)
{
    const std::vector<Rank> plain = train(1, 2, 1, 0, 3, gpt2),
                            alone = train(1, 2, 1, 3, 3, gpt2 + Words{"--zero-group-size", "1"});
    EXPECT_EQ(plain[1].losses, alone[1].losses);
    EXPECT_EQ(plain[1].held, alone[1].held);
    EXPECT_EQ(plain[1].sent, alone[1].sent);
}

// How many replicas share when `ranks` of each node follow one another, tensor ranks fastest.
int fitted_group(const Words &flags, int num_ranks, int ranks_of_a_node)
{
    Words words = gpt2 + Words{"--num-layers",          "4", "--hidden-size", "48",
                               "--num-attention-heads", "4", "--vocab-size",  "75",
                               "--seq-length",          "8", "--dry-run"} +
                  flags;
    words.insert(words.begin(), "train");
    std::vector<char *> argv;
    for (std::string &word : words)
        argv.push_back(word.data());
    struct tv_train_options options = {};
    struct tv_run run = {};
    EXPECT_EQ(tv_train_options_parse((int)argv.size(), argv.data(), &options), TV_OK);
    EXPECT_EQ(tv_run_resolve(&options, num_ranks, &run), TV_OK) << tv_error_message();
    std::vector<int> identity, nodes;
    for (int r = 0; r < num_ranks; r++) {
        identity.push_back(r);
        nodes.push_back(r / ranks_of_a_node);
    }
    struct tv_run_place place = {};
    place.placement = {num_ranks, identity.data()};
    place.nodes.node_of = nodes.data();
    run.place = &place;
    EXPECT_EQ(tv_run_fit_zero_group(&run), TV_OK);
    const int group = run.zero_group;
    run.place = nullptr;
    tv_run_free(&run);
    tv_train_options_free(&options);
    return group;
}

TEST(Zero, GroupsFitNodesUnlessSaidOtherwise)
{
    const Words stage = {"--zero-stage", "2"};
    EXPECT_EQ(fitted_group(stage, 8, 8), 8); // one node
    EXPECT_EQ(fitted_group(stage, 8, 4), 4);
    EXPECT_EQ(fitted_group(stage + Words{"--tp", "2"}, 16, 4), 2);
    EXPECT_EQ(fitted_group(stage + Words{"--pp", "2"}, 16, 6), 2); // 6 does not divide 8; 4 crosses
    EXPECT_EQ(fitted_group(stage, 6, 4), 2);                       // nodes of 4 and 2
    EXPECT_EQ(fitted_group(stage, 8, 1), 8); // one of each node would share nothing
    EXPECT_EQ(fitted_group(stage + Words{"--zero-group-size", "8"}, 8, 4), 8);
    EXPECT_EQ(fitted_group(stage + Words{"--memory-limit", "1000"}, 8, 4), 8);
    EXPECT_EQ(fitted_group({}, 8, 4), 1); // stage 0
}

// The least that any 40 steps after the first 20 add. Requests of a group are kept for the next, so a
// step in which more of them were under way at once than ever before leaves its scratch behind: that
// happens in some steps, at times that no run repeats. What a step loses is lost in all.
int64_t least_growth(const std::vector<size_t> &heap)
{
    const size_t window = 40;
    int64_t least = INT64_MAX;
    for (size_t first = 19; first + window < heap.size(); first += window)
        least = std::min(least, (int64_t)heap[first + window] - (int64_t)heap[first]);
    return least;
}

// No buffer is made by any step. Of the process, what 40 steps of 4 ranks leave behind is less than the
// smallest block each. (The allocator's caches of freed blocks count and come to some thousands of bytes.)
TEST(Zero, MemoryDoesNotGrow)
{
    for (int zero = 0; zero <= 3; zero++) {
        const Words how = gpt2 + Words{"--schedule",    "zb-h1", "--num-layers",        "2",
                                       "--hidden-size", "16",    "--global-batch-size", "4"};
        for (const Rank &rank : train(2, 2, 1, zero, 300, how)) {
            EXPECT_EQ(rank.memory.back(), rank.memory[0]);
            EXPECT_EQ(rank.num_buffers.back(), rank.num_buffers[0]);
            EXPECT_GT(rank.num_buffers[0], 5);
            EXPECT_LT(least_growth(rank.heap), 40 * 4 * 32) << "zero " << zero;
        }
    }
}

TEST(Zero, OneReplicaHasNobodyToShareWith)
{
    const std::vector<Rank> plain = train(2, 1, 1, 0, 3, gpt2),
                            sharded = train(2, 1, 1, 3, 3, gpt2);
    EXPECT_EQ(plain[0].losses, sharded[0].losses);
    EXPECT_EQ(plain[1].held, sharded[1].held);
}
