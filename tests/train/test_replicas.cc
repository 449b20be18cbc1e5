// What several ranks hold is the same on all of them: gradients and weights after 20 steps, bit for bit, and the
// numbers that each rank reports (rows B01, B05, B06, B09, B18).
#include "temporary.h"
#include "test_options.h"
#include "tests/mesh/ranks.h"
#include <map>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "train/trainer_internal.h"
#pragma GCC diagnostic pop

namespace
{
using Flags = std::vector<std::string>;
// By name, tensor rank that holds it first, and place: what a rank has of a weight.
using Pieces = std::map<std::string, std::vector<float>>;

constexpr int num_steps = 20;

Flags operator+(Flags a, const Flags &b)
{
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

struct Rank {
    Pieces weights, grads;
    std::vector<double> losses, norms, evals;
};

void add_piece(const struct tv_trainer *tr, const struct tv_local_param &local, int64_t first,
               const float *values, int64_t count, Pieces *pieces)
{
    int holder, num;
    tv_param_holders(local.param, tr->run->extent.at[TV_TENSOR], tr->here.at[TV_TENSOR], &holder,
                     &num);
    (*pieces)[local.param->name + (" of rank " + std::to_string(holder)) + " from " +
              std::to_string(first)] = std::vector<float>(values, values + count);
}

void collect(const struct tv_trainer *tr, const struct tv_weight_array &array, Pieces *pieces)
{
    const struct tv_sharding *s = &tr->sharding;
    for (int i = 0; i < s->locals.num && array.is_whole; i++) {
        const struct tv_local_param &local = s->locals.params[i];
        add_piece(tr, local, 0, array.data + local.first, local.count, pieces);
    }
    for (int i = 0; i < s->num_pieces && !array.is_whole; i++) {
        const struct tv_local_param &local = s->locals.params[s->pieces[i].local];
        add_piece(tr, local, s->pieces[i].first - local.first,
                  array.data + tv_piece_offset(&array, &s->pieces[i]), s->pieces[i].count, pieces);
    }
}

void train(struct tv_comm *world, const struct tv_run *run, Rank *rank)
{
    struct tv_trainer *tr = nullptr;
    ASSERT_OK(tv_trainer_create(world, run, &tr));
    for (int step = 1; step <= num_steps; step++) {
        struct tv_step_report report = {};
        ASSERT_OK(tv_train_step(tr, step, &report));
        rank->losses.push_back(report.loss);
        rank->norms.push_back(report.grad_norm);
        if (step % 10 == 0) {
            struct tv_eval_report held_out = {};
            ASSERT_OK(tv_train_eval(tr, &held_out));
            rank->evals.push_back(held_out.all.loss);
        }
    }
    collect(tr, tr->params, &rank->weights);
    collect(tr, tr->grads, &rank->grads);
    tv_trainer_destroy(tr);
}

std::vector<Rank> train(const Flags &flags, int num_ranks)
{
    Temporary folder;
    std::string tokens;
    for (int i = 0; i < 8 * 200 + 1; i++)
        tokens += {(char)((i * i + 3 * i) % 61), 0};
    const std::string data = folder.write("tokens", tokens),
                      valid = folder.write("valid", tokens.substr(0, 2 * (8 * 8 + 1)));
    Words words("train", Flags{"--num-layers",
                               "2",
                               "--hidden-size",
                               "32",
                               "--num-attention-heads",
                               "4",
                               "--vocab-size",
                               "67",
                               "--seq-length",
                               "8",
                               "--global-batch-size",
                               "8",
                               "--train-iters",
                               std::to_string(num_steps),
                               "--lr",
                               "1e-2",
                               "--threads",
                               "1",
                               "--data",
                               data,
                               "--data-format",
                               "u16",
                               "--valid-data",
                               valid} +
                             flags);
    tv_train_options options = {};
    tv_run run = {};
    EXPECT_EQ(tv_train_options_parse(words.argc(), words.argv.data(), &options), TV_OK)
        << tv_error_message();
    EXPECT_EQ(tv_run_resolve(&options, num_ranks, &run), TV_OK) << tv_error_message();
    std::vector<Rank> ranks((size_t)num_ranks);
    run_threads(num_ranks,
                [&](tv_comm *world) { train(world, &run, &ranks[(size_t)tv_comm_rank(world)]); });
    tv_run_free(&run);
    tv_train_options_free(&options);
    return ranks;
}

// Returns how many pieces more than one rank has.
size_t check_pieces(const std::vector<Rank> &ranks, Pieces Rank::*which)
{
    Pieces first;
    std::map<std::string, int> holders;
    for (const Rank &rank : ranks)
        for (const auto &[name, values] : rank.*which) {
            EXPECT_EQ(first.emplace(name, values).first->second, values) << name;
            holders[name]++;
        }
    size_t num = 0;
    for (const auto &entry : holders)
        num += entry.second > 1;
    return num;
}

void check(const Flags &flags, int num_ranks)
{
    std::string what;
    for (const std::string &flag : flags)
        what += flag + " ";
    SCOPED_TRACE(what);
    const std::vector<Rank> ranks = train(flags, num_ranks);
    EXPECT_GT(check_pieces(ranks, &Rank::weights), 0u);
    EXPECT_GT(check_pieces(ranks, &Rank::grads), 0u);
    for (const Rank &rank : ranks) {
        EXPECT_EQ(rank.losses, ranks[0].losses);
        EXPECT_EQ(rank.norms, ranks[0].norms);
        EXPECT_EQ(rank.evals, ranks[0].evals);
    }
}
} // namespace

TEST(Replicas, B01CopiesOfATiedWeight)
{
    for (const char *zero : {"0", "1", "2"})
        check({"--model", "gpt2", "--pp", "2", "--dp", "2", "--zero-stage", zero}, 4);
}

TEST(Replicas, B05NormsAndRowBiasesUnderSequenceParallelism)
{
    check({"--model", "gpt2", "--tp", "4", "--sequence-parallel"}, 4);
    for (const char *zero : {"1", "3"})
        check({"--model", "llama", "--tp", "2", "--dp", "2", "--sequence-parallel", "--zero-stage",
               zero},
              4);
}

TEST(Replicas, B06KeyAndValueHeadsThatSeveralRanksHold)
{
    const Flags llama = {"--model", "llama", "--num-query-groups"};
    for (const char *zero : {"0", "1", "3"})
        check(llama + Flags{"1", "--tp", "2", "--dp", "2", "--zero-stage", zero}, 4);
    check(llama + Flags{"2", "--tp", "4"}, 4);
}

TEST(Replicas, B09GradientsOfTheLastMicroBatch)
{
    const Flags four = {"--model", "llama", "--dp", "2", "--global-batch-size", "8"};
    check(four + Flags{"--schedule", "zb-h1"}, 2);
    check(four + Flags{"--dp", "4", "--zero-stage", "2", "--zero-group-size", "2"}, 4);
}

TEST(Replicas, B18EveryRankReportsTheLossOfOneRank)
{
    const Rank one = train({"--model", "llama"}, 1)[0];
    for (const Flags &mesh :
         {Flags{"--pp", "2"}, Flags{"--pp", "2", "--vpp", "2", "--stage-layout", "E|t|t|L"},
          Flags{"--pp", "2", "--dp", "2", "--zero-stage", "3"}}) {
        const std::vector<Rank> ranks =
            train(Flags{"--model", "llama"} + mesh, mesh.size() > 4 && mesh[2] == "--dp" ? 4 : 2);
        for (const Rank &rank : ranks) {
            EXPECT_EQ(rank.losses, ranks[0].losses);
            EXPECT_EQ(rank.evals, ranks[0].evals);
            for (size_t i = 0; i < one.losses.size(); i++)
                EXPECT_NEAR(rank.losses[i], one.losses[i], 2e-6 * one.losses[i]);
            for (size_t i = 0; i < one.evals.size(); i++)
                EXPECT_NEAR(rank.evals[i], one.evals[i], 2e-6 * one.evals[i]);
        }
    }
}
