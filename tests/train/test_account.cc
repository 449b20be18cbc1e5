// Bytes of a step: predicted from the run alone, against the counters of every communicator on every rank, and
// against TOPOLOGY's formulas worked by hand.
#include "temporary.h"
#include "test_options.h"
#include "tests/mesh/ranks.h"
#include <numeric>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "train/split.h"
#include "train/trainer_internal.h"
#pragma GCC diagnostic pop

namespace
{
using Flags = std::vector<std::string>;

// 8 layers of 32 channels, 16 tokens, 6 micro-batches for each of 2 replicas.
Flags with(Flags flags, const Flags &more)
{
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
}
const Flags GPT2 = {"--model",
                    "gpt2",
                    "--num-layers",
                    "8",
                    "--hidden-size",
                    "32",
                    "--num-attention-heads",
                    "4",
                    "--vocab-size",
                    "96",
                    "--seq-length",
                    "16",
                    "--global-batch-size",
                    "12",
                    "--train-iters",
                    "2",
                    "--threads",
                    "1"};
const Flags LLAMA = with(
    GPT2, {"--model", "llama", "--ffn-hidden-size", "68", "--untie-embeddings-and-output-weights"});

// A run resolved from a command line.
struct Resolved {
    Words words;
    tv_train_options options = {};
    tv_run run = {};

    Resolved(const Flags &flags, int num_ranks) : words("train", flags)
    {
        EXPECT_EQ(tv_train_options_parse(words.argc(), words.argv.data(), &options), TV_OK);
        EXPECT_EQ(tv_run_resolve(&options, num_ranks, &run), TV_OK) << tv_error_message();
    }
    ~Resolved()
    {
        tv_run_free(&run);
        tv_train_options_free(&options);
    }
    int num_ranks() const
    {
        return run.extent.at[TV_PIPE] * run.extent.at[TV_DATA] * run.extent.at[TV_TENSOR];
    }
    // Of all ranks together.
    tv_sent sent(const int *node_of = nullptr) const
    {
        tv_sent sent;
        EXPECT_EQ(tv_run_sent(&run, &run.schedule, node_of, &sent), TV_OK) << tv_error_message();
        return sent;
    }
};
Flags dry(const Flags &flags)
{
    return with(flags, {"--dry-run"});
}

std::vector<int64_t> bytes_of(const int64_t *bytes)
{
    return std::vector<int64_t>(bytes, bytes + TV_NUM_ACCOUNTS);
}

// What one rank of a run saw, to be compared when all ranks have ended.
struct Seen {
    std::vector<std::vector<int64_t>> predicted, measured; // by step and account
    std::vector<int64_t> sum;                              // of all ranks in the last step
    std::vector<size_t> bytes, peaks;                      // by kind of memory
};

void train(tv_comm *world, const tv_run *run, Seen *seen)
{
    tv_trainer *trainer = nullptr;
    ASSERT_OK(tv_trainer_create(world, run, &trainer));
    for (int64_t step = 1; step <= run->train_iters; step++) {
        tv_step_report report;
        tv_sent sent;
        ASSERT_OK(tv_train_step(trainer, step, &report));
        ASSERT_OK(tv_run_rank_sent(run, trainer->schedule, trainer->here, nullptr, &sent));
        seen->predicted.push_back(bytes_of(sent.bytes));
        seen->measured.push_back(bytes_of(trainer->account.sent));
    }
    tv_mesh_account mesh;
    ASSERT_OK(tv_trainer_sum_account(trainer, &mesh));
    seen->sum = bytes_of(mesh.sent_bytes);
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++) {
        seen->bytes.push_back(tv_device_bytes(trainer->device, (tv_mem_kind_t)k));
        seen->peaks.push_back(tv_device_kind_peak_bytes(trainer->device, (tv_mem_kind_t)k));
    }
    tv_trainer_destroy(trainer);
}

class Account : public ::testing::Test
{
  protected:
    void check(const Flags &flags, int num_ranks)
    {
        SCOPED_TRACE(std::accumulate(flags.begin() + 20, flags.end(), std::string(),
                                     [](auto a, auto b) { return a + " " + b; }));
        const Resolved r(with(flags, {"--data", data}), num_ranks);
        std::vector<Seen> ranks((size_t)num_ranks);
        run_threads(num_ranks, [&](tv_comm *world) {
            train(world, &r.run, &ranks[(size_t)tv_comm_rank(world)]);
        });
        for (const Seen &seen : ranks) {
            EXPECT_EQ(seen.predicted.size(), (size_t)r.run.train_iters);
            EXPECT_EQ(seen.predicted, seen.measured);
            EXPECT_EQ(seen.sum, bytes_of(r.sent().bytes));
            EXPECT_EQ(seen.bytes, seen.peaks);
        }
    }

    Temporary dir;
    std::string data = dir.write("walk.u16", [] {
        std::string tokens;
        for (int i = 0; i < 16 * 50 + 1; i++)
            tokens += {(char)(i * 7 % 96), 0};
        return tokens;
    }());
};
} // namespace

TEST_F(Account, IsWhatEveryRankSendsUnderEverySchedule)
{
    for (int i = 0; const char *name = tv_schedule_name(i); i++) {
        const Flags recompute = {"--recompute", i % 3 == 0   ? "none"
                                                : i % 3 == 1 ? "full"
                                                             : "selective"};
        check(with(with(LLAMA, recompute), {"--schedule", name, "--pp", "2", "--tp", "2"}), 4);
    }
    check(with(GPT2, {"--schedule", "interleaved", "--pp", "2", "--vpp", "4", "--dp", "2"}), 4);
}

TEST_F(Account, IsWhatEveryRankSendsOnEveryMesh)
{
    for (const Flags &mesh : std::vector<Flags>{{"1", "1", "1"},
                                                {"4", "1", "1"},
                                                {"1", "3", "1"},
                                                {"1", "1", "4"},
                                                {"2", "2", "2"},
                                                {"3", "1", "2"}}) {
        const int num_ranks = std::stoi(mesh[0]) * std::stoi(mesh[1]) * std::stoi(mesh[2]);
        const Flags cut = {"--pp", mesh[0], "--dp", mesh[1], "--tp", mesh[2]};
        check(with(GPT2, cut), num_ranks);
        check(with(with(LLAMA, cut), {"--num-query-groups", "2"}), num_ranks);
    }
}

TEST_F(Account, IsWhatEveryRankSendsUnderRecomputationAndSequenceParallelism)
{
    for (const char *recompute : {"none", "selective", "full"}) {
        for (const char *schedule : {"1f1b", "zb-h1", "zb-v"}) {
            const Flags how = {"--tp",        "2",       "--pp",       "2",
                               "--recompute", recompute, "--schedule", schedule};
            check(with(with(GPT2, how), {"--sequence-parallel"}), 4);
            check(with(with(LLAMA, how),
                       {"--sequence-parallel", "--label-smoothing", "0.1", "--dropout", "0.1"}),
                  4);
            check(with(with(GPT2, how), {"--label-smoothing", "0.1"}), 4);
        }
    }
}

TEST_F(Account, IsWhatEveryRankSendsWhereUnitsStandAlone)
{
    for (const char *recompute : {"none", "full"}) {
        const Flags how = {"--recompute", recompute, "--tp", "2", "--stage-layout"};
        check(with(with(GPT2, how), {"E|t*4|t*4|L", "--pp", "2", "--vpp", "2"}), 4);
        check(with(with(GPT2, how),
                   {"E|t*4|t*4|L", "--pp", "2", "--schedule", "zb-v", "--sequence-parallel"}),
              4);
        check(with(with(LLAMA, how), {"Et|t*7|L", "--pp", "3"}), 6);
    }
}

TEST_F(Account, IsWhatEveryRankSendsWithMuonAndUnevenPieces)
{
    // Messages above 8 KiB of numbers that 3 ranks do not divide; matrices gathered over the tensor axis.
    check(with(GPT2, {"--optimizer", "muon", "--tp", "2", "--dp", "3", "--seq-length", "15",
                      "--vocab-size", "97"}),
          6);
    check(with(LLAMA, {"--optimizer", "muon", "--tp", "4", "--num-query-groups", "2"}), 4);
    check(with(LLAMA, {"--hidden-size", "80", "--num-attention-heads", "5", "--ffn-hidden-size",
                       "85", "--tp", "5", "--seq-length", "31"}),
          5);
}

TEST_F(Account, IsWhatEveryRankSendsWhereReplicasShare)
{
    const Flags untied = with(LLAMA, {"--num-query-groups", "2"}),
                tied = {GPT2.begin(), GPT2.end()};
    for (const char *zero : {"1", "2", "3"}) {
        const Flags stage = {"--zero-stage", zero};
        // kv heads that two tensor ranks hold, shards that 16 does not divide
        check(with(with(untied, stage), {"--tp", "4", "--dp", "2"}), 8);
        check(with(with(untied, stage),
                   {"--tp", "4", "--dp", "2", "--sequence-parallel", "--optimizer", "muon"}),
              8);
        check(with(with(untied, stage), {"--tp", "2", "--dp", "3", "--sequence-parallel",
                                         "--num-query-groups", "1", "--recompute", "full"}),
              6);
        // a tied weight on one stage, and on two; groups of 2 of 4 and of 6
        check(with(with(tied, stage),
                   {"--tp", "2", "--dp", "4", "--sequence-parallel", "--zero-group-size", "2"}),
              8);
        check(with(with(tied, stage), {"--dp", "6", "--zero-group-size", "2"}), 6);
        check(with(with(tied, stage), {"--pp", "2", "--dp", "4", "--zero-group-size", "2",
                                       "--schedule", "zb-h1", "--no-overlap-grad-reduce"}),
              8);
        check(with(with(tied, stage), {"--pp", "2", "--dp", "3", "--schedule", "zb-v"}), 6);
    }
}

TEST_F(Account, FollowsTheBatchOfARamp)
{
    check(with(GPT2,
               {"--pp", "2", "--tp", "2", "--rampup-batch-size", "4 4 8", "--train-iters", "4"}),
          4);
}

TEST(AccountFormula, IsThatOfTopologyWhereNothingIsSmall)
{
    // P = D = T = 2, m = 6 micro-batches of R = 1 x 256 rows of C = 32 channels: all sums are above 8 KiB but those
    // of the loss.
    const Resolved r(
        dry(with(GPT2, {"--seq-length", "256", "--pp", "2", "--tp", "2", "--dp", "2"})), 0);
    const tv_sent sent = r.sent();
    const int64_t A = 4 * 256 * 32, m = 6, layers = 8, D = 2, T = 2;
    // Of each rank m (4 L_r + E + Hd) A 2 (T-1)/T; the losses, 4 and 8 R bytes, are small: each goes to T-1 peers.
    const int64_t tensor = m * ((4 * layers + 2) * A + (4 + 8) * 256);
    EXPECT_EQ(sent.bytes[TV_ACCOUNT_TENSOR], D * T * tensor);
    EXPECT_EQ(sent.bytes[TV_ACCOUNT_PIPE], D * T * 2 * m * A);
    // 2 g P_r (D-1)/D of each of the two replicas.
    int64_t params = 0;
    for (int stage = 0; stage < 2; stage++) {
        int64_t bytes[TV_NUM_MEM_KINDS];
        ASSERT_OK(tv_run_stage_bytes(&r.run, stage, bytes));
        params += T * bytes[TV_MEM_PARAMS];
    }
    EXPECT_EQ(sent.bytes[TV_ACCOUNT_DATA], D * params);
    EXPECT_EQ(sent.bytes[TV_ACCOUNT_TIED], D * T * 2 * 4 * (96 / 2) * 32 / 2 * 2);
    EXPECT_EQ(sent.bytes[TV_ACCOUNT_WORLD], 8 * 7 * 8 * (TV_WINDOW_SUMS + TV_STEP_SUMS));
}

TEST(AccountFormula, SequenceParallelismSendsOneTthOfAMessage)
{
    const Flags mesh = {"--pp", "2", "--tp", "4", "--micro-batch-size", "2"};
    const tv_sent plain = Resolved(dry(with(GPT2, mesh)), 0).sent();
    const tv_sent cut = Resolved(dry(with(with(GPT2, mesh), {"--sequence-parallel"})), 0).sent();
    EXPECT_EQ(plain.bytes[TV_ACCOUNT_PIPE], 4 * cut.bytes[TV_ACCOUNT_PIPE]);
}

TEST(AccountFormula, TellsNodesApart)
{
    // Mesh rank (p 2 + d) 2 + t. Stages on nodes of their own: messages and the tied weight cross, and of the world's
    // sums those to 4 of 7 peers.
    const Resolved r(dry(with(GPT2, {"--pp", "2", "--tp", "2", "--dp", "2"})), 0);
    const int stages[] = {0, 0, 0, 0, 1, 1, 1, 1}, tensor[] = {0, 1, 0, 1, 0, 1, 0, 1};
    const tv_sent far = r.sent(stages), near = r.sent(tensor);
    const std::vector<int64_t> all = bytes_of(far.bytes);
    EXPECT_EQ(bytes_of(far.between), (std::vector<int64_t>{all[TV_PIPE], 0, 0, all[TV_ACCOUNT_TIED],
                                                           all[TV_ACCOUNT_WORLD] / 7 * 4}));
    EXPECT_EQ(bytes_of(near.between),
              (std::vector<int64_t>{0, 0, all[TV_TENSOR], 0, all[TV_ACCOUNT_WORLD] / 7 * 4}));
    EXPECT_EQ(bytes_of(near.bytes), all);
}

// Rows go round the ring of tensor ranks, each to the next: of four on two nodes two messages in four cross, or all.
TEST(AccountFormula, RowsGoRoundARing)
{
    const Resolved r(dry(with(GPT2, {"--tp", "4", "--sequence-parallel"})), 0);
    const int side_by_side[] = {0, 0, 1, 1}, in_turns[] = {0, 1, 0, 1};
    const tv_sent few = r.sent(side_by_side), many = r.sent(in_turns);
    EXPECT_EQ(bytes_of(few.bytes), bytes_of(many.bytes));
    const int64_t own = 4 * tv_run_message_count(&r.run), m = r.run.num_micro;
    const int64_t gathers = m * (4 * r.run.model.num_layers + 2);
    EXPECT_EQ(many.between[TV_ACCOUNT_TENSOR] - few.between[TV_ACCOUNT_TENSOR],
              gathers * (4 - 2) * 3 * own);
}

TEST(AccountFormula, BytesToEachPeerAddUpToThoseToAll)
{
    for (const int64_t count : {0, 1, 2047, 2048, 2049, 2050, 100003}) {
        for (const int size : {1, 2, 3, 7}) {
            int64_t sum = 0;
            for (int rank = 0; rank < size; rank++) {
                int64_t total = 0;
                for (int peer = 0; peer < size; peer++)
                    total += tv_all_reduce_sent_bytes(count, TV_F32, size, rank, peer);
                EXPECT_EQ(tv_all_reduce_sent_bytes(count, TV_F32, size, rank, -1), total);
                sum += total;
            }
            // 2 (k-1)/k n on each rank; up to 8 KiB (k-1) n
            EXPECT_EQ(sum, 4 * count * (size - 1) * (count <= 2048 ? size : 2));
        }
    }
}
