// Saved by any mesh, continued on any other: all ordered pairs against a run that was never interrupted.
#include "train/resolved_run.h"
#include "train/temporary.h"
#include <cmath>
#include <cstring>
#include <filesystem>
#include <jansson.h>
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
    ASSERT_EQ(tv_checkpoint_find(world, &options, {}, &checkpoint), TV_OK) << tv_error_message();
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

std::string dump(const json_t *json, size_t flags)
{
    char *text = json_dumps(json, flags);
    const std::string all = text;
    std::free(text);
    return all;
}

json_t *entry_json(const char *dtype, json_t *like, size_t begin, size_t bytes)
{
    return json_pack("{s:s, s:O, s:[I, I]}", "dtype", dtype, "shape",
                     json_object_get(like, "shape"), "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + bytes));
}

// The upper halves of float32 numbers: cut, not rounded, so another number than the master's.
std::string upper_halves(const std::string &data)
{
    std::string halves;
    for (size_t i = 0; i < data.size(); i += 4)
        halves += data.substr(i + 2, 2);
    return halves;
}

// A shard with BF16 weights behind everything else, which is as it was; masters among it, or not.
std::string narrow_shard(const std::string &old, bool has_masters)
{
    uint64_t header_bytes;
    std::memcpy(&header_bytes, old.data(), 8);
    json_t *header = json_loadb(old.data() + 8, header_bytes, 0, nullptr), *entry;
    json_t *made = json_object();
    std::string all;
    const char *name;
    for (const bool is_narrow : {false, true}) {
        json_object_foreach(header, name, entry)
        {
            const bool is_weight = std::strncmp(name, "weight/", 7) == 0;
            if (std::strcmp(name, "__metadata__") == 0 ||
                (is_narrow ? !is_weight : is_weight && !has_masters))
                continue;
            json_t *offsets = json_object_get(entry, "data_offsets");
            const size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
            const size_t end = (size_t)json_integer_value(json_array_get(offsets, 1));
            std::string data = old.substr(8 + header_bytes + begin, end - begin);
            if (is_narrow)
                data = upper_halves(data);
            const std::string key =
                is_weight && !is_narrow ? std::string("master") + std::strchr(name, '/') : name;
            json_object_set_new(
                made, key.c_str(),
                entry_json(is_narrow ? "BF16" : "F32", entry, all.size(), data.size()));
            all += data;
        }
    }
    std::string text = dump(made, JSON_COMPACT);
    text.resize((text.size() + 7) / 8 * 8, ' ');
    json_decref(header);
    json_decref(made);
    return safetensors(text, all);
}

// The checkpoint of one rank as a run with bf16 weights and fp32 masters would have written it, or without the masters.
void narrow_weights(const Temporary &folder, const std::string &step, bool has_masters)
{
    const std::string shard = step + "/shard-00000.safetensors";
    const std::string bytes = narrow_shard(folder.read(shard), has_masters);
    const struct tv_file_digest digest = tv_digest_of(bytes.data(), bytes.size());
    json_t *index = json_loads(folder.read(step + "/index.json").c_str(), 0, nullptr), *entry;
    json_t *kinds = json_object_get(index, "tensors");
    const char *name;
    if (has_masters)
        json_object_set_new(kinds, "master", json_deep_copy(json_object_get(kinds, "weight")));
    json_object_foreach(json_object_get(kinds, "weight"), name, entry)
        json_object_set_new(entry, "dtype", json_string("BF16"));
    json_object_set_new(json_object_get(index, "shards"), "shard-00000.safetensors",
                        tv_digest_json(&digest));
    json_object_del(index, "self");
    const std::string rest = dump(index, JSON_COMPACT | JSON_SORT_KEYS);
    const struct tv_file_digest self = tv_digest_of(rest.data(), rest.size());
    json_object_set_new(index, "self", tv_digest_json(&self));
    folder.write(shard, bytes);
    folder.write(step + "/index.json", dump(index, JSON_INDENT(2)));
    json_decref(index);
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
        // Few micro-batches, other ones on other meshes.
        const std::string micro_batch = mesh.dp % 2 == 0 ? "3" : "4";
        const Flags flags = small_model() + data + model + mesh.flags() + more +
                            Flags{"--micro-batch-size",  micro_batch,   "--train-iters",
                                  std::to_string(steps), "--export-hf", folder.path("export")};
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

TEST_F(Pairs, AllOfThirteenMeshes)
{
    check_all({"--model", "llama", "--num-query-groups", "2"}, 1);
}

TEST_F(Pairs, OfATiedModelWithFusedMatrices)
{
    check_all({"--model", "gpt2"}, 5); // 5 and 13 have no common divisor: another partner each time
}

TEST_F(Pairs, AMasterIsReadInPlaceOfItsWeight)
{
    const Flags llama = {"--model", "llama"};
    const Mesh &tp2 = meshes[6];
    train(meshes[0], llama, HALF, {"--save", folder.path("fp32")});
    const Outcome want = train(tp2, llama, WHOLE, {"--load", folder.path("fp32")});
    for (const bool has_masters : {true, false}) {
        const std::string name = has_masters ? "with" : "without";
        std::filesystem::copy(folder.path("fp32"), folder.path(name),
                              std::filesystem::copy_options::recursive);
        narrow_weights(folder, name + "/step-00000005", has_masters);
        const Outcome got = train(tp2, llama, WHOLE, {"--load", folder.path(name)});
        ASSERT_EQ(got.steps.size(), (size_t)(WHOLE - HALF));
        EXPECT_EQ(got.weights == want.weights, has_masters);
        EXPECT_EQ(got.steps.at(6) == want.steps.at(6), has_masters);
        EXPECT_NEAR(got.steps.at(6).first, want.steps.at(6).first, 0.02);
    }
}
