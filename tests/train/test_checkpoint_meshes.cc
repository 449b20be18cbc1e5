// Saved by any mesh, continued on any other: all ordered pairs against a run that was never interrupted.
#include "train/resolved_run.h"
#include "train/temporary.h"
#include <cmath>
#include <map>

namespace
{
const Mesh meshes[] = {
    {"one_rank", 1, 1, 1, 0, {}},
    {"dp3", 1, 3, 1, 0, {}},
    {"dp2_zero1", 1, 2, 1, 1, {}},
    {"dp3_zero2", 1, 3, 1, 2, {}},
    {"dp4_zero3", 1, 4, 1, 3, {}},
    {"dp4_zero2_groups", 1, 4, 1, 2, {"--zero-group-size", "2"}},
    {"tp2", 1, 1, 2, 0, {}},
    {"tp4", 1, 1, 4, 0, {"--sequence-parallel"}},
    {"tp2_dp2_zero3", 1, 2, 2, 3, {}},
    {"pp3", 3, 1, 1, 0, {"--schedule", "zb-h1"}},
    {"pp2_dp2_zero1", 2, 2, 1, 1, {}},
    {"pp2_dp2_zero2_v", 2, 2, 1, 2, {"--schedule", "zb-v", "--stage-layout", "Et|t|t|L"}},
    {"pp2_tp2_zero3", 2, 2, 2, 3, {"--recompute", "full"}},
};
enum { HALF = 5, WHOLE = 10 };

struct Outcome {
    std::map<int64_t, std::pair<double, double>> steps; // loss and gradient norm
    std::vector<float> weights;                         // of all tensors, in the order of the table
};

// From where `options` says to --train-iters.
void train_rank(struct tv_comm *world, const struct tv_train_options *given, Outcome *outcome)
{
    struct tv_train_options options = *given;
    struct tv_checkpoint *checkpoint = nullptr;
    struct tv_run run = {};
    struct tv_trainer *tr = nullptr;
    int64_t saved = 0;
    ASSERT_EQ(tv_checkpoint_find(world, &options, &checkpoint), TV_OK) << tv_error_message();
    if (checkpoint != nullptr) {
        ASSERT_EQ(tv_checkpoint_inherit(checkpoint, &options), TV_OK) << tv_error_message();
    }
    ASSERT_EQ(tv_run_resolve(&options, tv_comm_size(world), &run), TV_OK) << tv_error_message();
    run.checkpoint = checkpoint;
    ASSERT_EQ(tv_trainer_create(world, &run, &tr), TV_OK) << tv_error_message();
    for (int64_t step = tv_checkpoint_first_step(&run) + 1; step <= run.train_iters; step++) {
        struct tv_step_report report = {};
        ASSERT_EQ(tv_train_step(tr, step, &report), TV_OK) << tv_error_message();
        ASSERT_EQ(report.consumed_samples, 12 * step);
        if (tv_trainer_is_root(tr))
            outcome->steps[step] = {report.loss, report.grad_norm};
    }
    ASSERT_EQ(tv_checkpoint_save(tr, run.train_iters), TV_OK) << tv_error_message();
    ASSERT_EQ(tv_checkpoint_finish(tr, &saved), TV_OK);
    ASSERT_EQ(saved, run.options.save != nullptr ? run.train_iters : 0);
    ASSERT_EQ(tv_trainer_export(tr, run.options.export_hf), TV_OK);
    tv_trainer_destroy(tr);
    tv_run_free(&run);
    tv_checkpoint_close(checkpoint);
}

std::vector<float> read_weights(const std::string &path)
{
    std::vector<float> all;
    struct tv_safetensors *file = nullptr;
    EXPECT_EQ(tv_safetensors_open(path.c_str(), &file), TV_OK) << tv_error_message();
    for (int i = 0; file != nullptr && i < tv_safetensors_count(file); i++) {
        const struct tv_safetensor *tensor = tv_safetensors_at(file, i);
        const int64_t rows = tensor->shape[0], cols = tensor->bytes / 4 / rows;
        const struct tv_safetensors_rect rect = {0, rows, 0, cols};
        all.resize(all.size() + (size_t)(rows * cols));
        EXPECT_EQ(tv_safetensors_read(file, tensor, &rect, &*all.end() - rows * cols, cols), TV_OK);
    }
    tv_safetensors_close(file);
    return all;
}

class Pairs : public testing::Test
{
  protected:
    Temporary folder;
    Flags data;

    void SetUp() override
    {
        std::ofstream file(folder.path("tokens"), std::ios::binary);
        for (int i = 0; i < 1100; i++) // not a multiple of a batch: epochs end inside steps
            file.put((char)((i * i % 61 + i % 7) % 97)).put(0);
        data = {"--data", folder.path("tokens"), "--lr-decay-iters",
                "10",     "--lr-warmup-iters",   "3"};
    }
    Outcome train(const Mesh &mesh, const Flags &model, int steps, const Flags &more)
    {
        const Flags flags =
            small_model() + data + model + mesh.flags() + more +
            Flags{"--train-iters", std::to_string(steps), "--export-hf", folder.path("export")};
        Words words("train", flags);
        struct tv_train_options options = {};
        EXPECT_EQ(tv_train_options_parse(words.argc(), words.argv.data(), &options), TV_OK);
        std::vector<Outcome> outcomes((size_t)mesh.num_ranks());
        on_ranks(mesh.num_ranks(), [&](struct tv_comm *world, int rank) {
            train_rank(world, &options, &outcomes[(size_t)rank]);
        });
        tv_train_options_free(&options);
        Outcome outcome;
        for (const Outcome &one : outcomes) // one of them is the mesh's root
            outcome.steps.insert(one.steps.begin(), one.steps.end());
        outcome.weights = read_weights(folder.path("export/model.safetensors"));
        return outcome;
    }
    void expect_close(const Outcome &got, const Outcome &want)
    {
        ASSERT_EQ(got.steps.size(), (size_t)(WHOLE - HALF));
        for (const auto &[step, numbers] : got.steps) {
            const auto &[loss, norm] = want.steps.at(step);
            EXPECT_LT(std::abs(numbers.first - loss), 2e-6 * loss) << step;
            EXPECT_LT(std::abs(numbers.second - norm), 2e-5 * norm) << step;
        }
        ASSERT_EQ(got.weights.size(), want.weights.size());
        double worst = 0;
        for (size_t i = 0; i < got.weights.size(); i++)
            worst = std::max(worst, std::abs((double)got.weights[i] - want.weights[i]));
        EXPECT_LT(worst, 1e-4);
    }
    void check_all(const Flags &model, size_t stride)
    {
        const Outcome straight = train(meshes[0], model, WHOLE, {});
        size_t n = 0;
        for (const Mesh &from : meshes) {
            const std::string saved = folder.path(std::string("from-") + from.name);
            train(from, model, HALF, {"--save", saved});
            for (const Mesh &to : meshes) {
                if (n++ % stride != 0)
                    continue;
                SCOPED_TRACE(std::string(from.name) + " -> " + to.name);
                const Outcome got = train(to, model, WHOLE, {"--load", saved});
                expect_close(got, straight);
                if (&from == &to) {
                    const Outcome same = train(to, model, WHOLE, {});
                    for (const auto &[step, numbers] : got.steps)
                        EXPECT_EQ(numbers, same.steps.at(step)) << step;
                    EXPECT_EQ(got.weights, same.weights);
                }
            }
        }
    }
};
} // namespace

TEST_F(Pairs, AllOfTwelveMeshes)
{
    check_all({"--model", "llama", "--num-query-groups", "2"}, 1);
}

TEST_F(Pairs, OfATiedModelWithFusedMatrices)
{
    check_all({"--model", "gpt2"}, 5); // 5 and 12 have no common divisor: another partner each time
}
