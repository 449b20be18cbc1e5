// Folders that are written: what is read back, how they are cut into files, and models read in rows.
#include "hf_model.h"
#include "train/saved_model.h"
#include <cmath>
#include <limits>
#include <map>

static tv_status_t write_row(tv_hf_export *file, const Model &model, int i)
{
    const auto values = values_of(model, i);
    return tv_hf_export_numbers(file, values.data(), (int64_t)values.size());
}

TEST(HfExport, WritesWhatItReads)
{
    for (const Model *model : {new Model(TV_GPT2), new Model(TV_LLAMA), new Model(TV_LLAMA, 0)}) {
        Temporary dir;
        tv_hf_export *file = nullptr;
        ASSERT_EQ(
            tv_hf_export_begin(dir.path("a/b").c_str(), &model->config, &model->table, {}, &file),
            TV_OK)
            << tv_error_message();
        for (int i = 0; i < model->table.num_params; i++)
            ASSERT_EQ(write_row(file, *model, i), TV_OK);
        const float more = 0;
        EXPECT_EQ(tv_hf_export_numbers(file, &more, 1), TV_INTERNAL);
        EXPECT_FALSE(dir.has("a/b/model.safetensors"));
        ASSERT_EQ(tv_hf_export_finish(&file), TV_OK) << tv_error_message();
        EXPECT_EQ(file, nullptr);
        expect_opens(*model, dir.path("a/b"));
        tv_model_config back = {};
        ASSERT_EQ(tv_hf_config_read(dir.path("a/b/config.json").c_str(), &back), TV_OK);
        EXPECT_EQ(back.is_tied, model->config.is_tied);
        // The table's order is the file's, and only what belongs there.
        tv_safetensors *raw = nullptr;
        ASSERT_EQ(tv_safetensors_open(dir.path("a/b/model.safetensors").c_str(), &raw), TV_OK);
        ASSERT_EQ(tv_safetensors_count(raw), model->table.num_params);
        for (int i = 0; i < model->table.num_params; i++)
            EXPECT_STREQ(tv_safetensors_at(raw, i)->name, model->table.params[i].name);
        EXPECT_EQ(tv_safetensors_find(raw, "lm_head.weight") == nullptr,
                  model->config.is_tied != 0);
        tv_safetensors_close(raw);
        int entries = 0;
        for ([[maybe_unused]] const auto &e : std::filesystem::directory_iterator(dir.path("a/b")))
            entries++;
        EXPECT_EQ(entries, 2);
        delete model;
    }
}

TEST(HfExport, AnUnfinishedExportReplacesNothing)
{
    const Model model(TV_GPT2);
    Temporary dir;
    dir.write("model.safetensors", "old weights");
    dir.write("config.json", "old config");
    tv_hf_export *file = nullptr;
    ASSERT_EQ(tv_hf_export_begin(dir.path("").c_str(), &model.config, &model.table, {}, &file),
              TV_OK);
    ASSERT_EQ(write_row(file, model, 0), TV_OK);
    EXPECT_EQ(tv_hf_export_finish(&file), TV_INTERNAL);
    EXPECT_EQ(file, nullptr);
    tv_hf_export_abandon(&file);
    EXPECT_EQ(dir.read("model.safetensors"), "old weights");
    EXPECT_EQ(dir.read("config.json"), "old config");
    EXPECT_FALSE(dir.has("model.safetensors.tmp"));
}

TEST(HfExport, AFolderThatCannotBeIsRefused)
{
    const Model model(TV_GPT2);
    Temporary dir;
    dir.write("plain", "x");
    tv_hf_export *file = nullptr;
    EXPECT_EQ(tv_hf_folder_prepare(dir.path("plain").c_str()), TV_INVALID);
    expect_message_has("plain", tv_error_message());
    EXPECT_EQ(tv_hf_folder_prepare(dir.path("plain/sub").c_str()), TV_INVALID);
    EXPECT_EQ(tv_hf_folder_prepare(""), TV_INVALID);
    EXPECT_EQ(tv_hf_export_begin(dir.path("plain").c_str(), &model.config, &model.table, {}, &file),
              TV_INVALID);
    EXPECT_EQ(file, nullptr);
    EXPECT_EQ(tv_hf_folder_prepare(dir.path("new/er/est").c_str()), TV_OK);
    EXPECT_EQ(tv_hf_folder_prepare(dir.path("new/er/est/").c_str()), TV_OK); // twice is fine
}

// Sizes in fp32: embedding 1216 bytes, then 12 tensors of a layer, ...; the bytes of each file and the
// index, as transformers cuts them.
TEST(HfExport, Shards)
{
    const Model model(TV_GPT2);
    Temporary dir;
    tv_hf_export *file = nullptr;
    tv_hf_export_form form = {TV_HF_FP32, 4000};
    ASSERT_EQ(tv_hf_export_begin(dir.path("").c_str(), &model.config, &model.table, form, &file),
              TV_OK);
    for (int i = 0; i < model.table.num_params; i++)
        ASSERT_EQ(write_row(file, model, i), TV_OK);
    EXPECT_FALSE(dir.has("model.safetensors.index.json")); // until all is there
    ASSERT_EQ(tv_hf_export_finish(&file), TV_OK) << tv_error_message();
    expect_opens(model, dir.path(""));
    // Greedy: 19 x 16 + 8 x 16 + 2 x 16 numbers are 1856 bytes, the next tensor has 3072.
    std::vector<int64_t> shards, want_shards = {0};
    int64_t bytes = 0;
    for (int i = 0; i < model.table.num_params; i++) {
        const int64_t tensor = 4 * tv_param_count(&model.table.params[i]);
        if (want_shards.back() > 0 && want_shards.back() + tensor > 4000)
            want_shards.push_back(0);
        want_shards.back() += tensor;
        bytes += tensor;
    }
    EXPECT_EQ(want_shards[0], 1856);
    for (size_t s = 0; s < want_shards.size(); s++) {
        char name[64];
        snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", s + 1, want_shards.size());
        tv_safetensors *shard = nullptr;
        ASSERT_EQ(tv_safetensors_open(dir.path(name).c_str(), &shard), TV_OK) << tv_error_message();
        int64_t sum = 0;
        for (int i = 0; i < tv_safetensors_count(shard); i++)
            sum += tv_safetensors_at(shard, i)->bytes;
        shards.push_back(sum);
        tv_safetensors_close(shard);
    }
    EXPECT_EQ(shards, want_shards);
    expect_message_has("\"total_size\": " + std::to_string(bytes),
                       dir.read("model.safetensors.index.json"));

    // Again into the same folder, or beside a whole file: readers would mix them up.
    EXPECT_EQ(tv_hf_export_begin(dir.path("").c_str(), &model.config, &model.table, form, &file),
              TV_INVALID);
    expect_message_has("model.safetensors.index.json", tv_error_message());
    std::filesystem::remove(dir.path("model.safetensors.index.json"));
    dir.write("model.safetensors", "old");
    EXPECT_EQ(tv_hf_export_begin(dir.path("").c_str(), &model.config, &model.table, form, &file),
              TV_INVALID);
    EXPECT_EQ(file, nullptr);
}

TEST(HfExport, ATensorLargerThanALimitHasAFileOfItsOwn)
{
    const Model model(TV_LLAMA, 0);
    Temporary dir;
    tv_hf_export *file = nullptr;
    const tv_hf_export_form form = {TV_HF_BF16, 1};
    ASSERT_EQ(tv_hf_export_begin(dir.path("").c_str(), &model.config, &model.table, form, &file),
              TV_OK);
    for (int i = 0; i < model.table.num_params; i++)
        ASSERT_EQ(write_row(file, model, i), TV_OK);
    ASSERT_EQ(tv_hf_export_finish(&file), TV_OK) << tv_error_message();
    int files = 0;
    for (const auto &e : std::filesystem::directory_iterator(dir.path("")))
        files += e.path().extension() == ".safetensors";
    EXPECT_EQ(files, model.table.num_params);
    tv_hf *hf = nullptr;
    ASSERT_EQ(tv_hf_open(dir.path("").c_str(), &model.config, &model.table, &hf), TV_OK);
    EXPECT_STREQ(tv_hf_dtype(hf), "BF16");
    float rows[32];
    ASSERT_EQ(tv_hf_read_rows(hf, &model.table.params[0], 3, 2, rows), TV_OK);
    for (int i = 0; i < 32; i++)
        EXPECT_EQ(rows[i], (float)(48 + i)); // 8 bits hold them
    tv_hf_close(hf);
}

// Rounded to nearest even, in pieces that end anywhere.
TEST(HfExport, SixteenBits)
{
    Model model(TV_LLAMA);
    model.config.vocab_size = model.table.params[0].shape[0] = 2000; // more than a block of numbers
    Temporary dir;
    std::vector<float> values(32000, 1.00390625f); // halfway in bf16: to 1, which is even
    for (size_t i : {0, 16384, 31999})
        values[i] = (float)i;
    tv_hf_export *file = nullptr;
    ASSERT_EQ(tv_hf_export_begin(dir.path("").c_str(), &model.config, &model.table, {TV_HF_BF16, 0},
                                 &file),
              TV_OK);
    for (auto [first, count] : {std::pair{0, 7}, {7, 20000}, {20007, 11993}})
        ASSERT_EQ(tv_hf_export_numbers(file, values.data() + first, count), TV_OK);
    for (int i = 1; i < model.table.num_params; i++)
        ASSERT_EQ(write_row(file, model, i), TV_OK);
    ASSERT_EQ(tv_hf_export_finish(&file), TV_OK) << tv_error_message();
    expect_message_has("\"torch_dtype\": \"bfloat16\"", dir.read("config.json"));
    tv_hf *hf = nullptr;
    ASSERT_EQ(tv_hf_open(dir.path("").c_str(), &model.config, &model.table, &hf), TV_OK);
    std::vector<float> want(32000, 1.0f), got(32000);
    want[0] = 0;
    want[16384] = 16384;
    want[31999] = 32000; // 8 bits
    ASSERT_EQ(tv_hf_read_rows(hf, &model.table.params[0], 0, 2000, got.data()), TV_OK);
    EXPECT_EQ(got, want);
    tv_hf_close(hf);
}

TEST(HfExport, ANumberBeyondTheTypeIsRefusedInfinityIsNot)
{
    const Model model(TV_LLAMA);
    Temporary dir;
    const float inf = std::numeric_limits<float>::infinity();
    const float values[] = {inf, -inf, NAN, 65504.0f, 65536.0f};
    tv_hf_export *file = nullptr;
    ASSERT_EQ(tv_hf_export_begin(dir.path("").c_str(), &model.config, &model.table, {TV_HF_FP16, 0},
                                 &file),
              TV_OK);
    EXPECT_EQ(tv_hf_export_numbers(file, values, 4), TV_OK);
    EXPECT_EQ(tv_hf_export_numbers(file, values + 4, 1), TV_INVALID);
    expect_message_has("embed_tokens.weight has 65536, which is beyond the largest fp16",
                       tv_error_message());
    tv_hf_export_abandon(&file);
    EXPECT_TRUE(std::filesystem::is_empty(dir.path("")));
}

TEST(HfExport, MoreNumbersThanATensorHasAreRefused)
{
    const Model model(TV_GPT2);
    Temporary dir;
    tv_hf_export *file = nullptr;
    ASSERT_EQ(tv_hf_export_begin(dir.path("").c_str(), &model.config, &model.table, {}, &file),
              TV_OK);
    const std::vector<float> values(19 * 16 + 1);
    EXPECT_EQ(tv_hf_export_numbers(file, values.data(), 300), TV_OK);
    EXPECT_EQ(tv_hf_export_numbers(file, values.data(), 5), TV_INTERNAL);
    EXPECT_EQ(tv_hf_export_numbers(file, values.data(), 4), TV_OK);
    tv_hf_export_abandon(&file);
}

TEST(SavedModel, StreamsEveryRowOnce)
{
    const Model model(TV_LLAMA, 0);
    Temporary dir;
    write_tensors(dir.path("model.safetensors"), tensors_of(model));
    ASSERT_EQ(tv_hf_config_write(dir.path("config.json").c_str(), &model.config, TV_HF_FP32),
              TV_OK);
    tv_saved_model saved = {};
    ASSERT_EQ(tv_saved_model_open(dir.path("").c_str(), nullptr, &saved), TV_OK)
        << tv_error_message();
    EXPECT_EQ(saved.dtype, TV_HF_FP32);
    std::map<std::string, std::vector<float>> got;
    const tv_saved_model_visitor visitor = {
        &got,
        [](void *context, const tv_param *param, int64_t first, int64_t num, const float *numbers) {
            auto &tensor = (*static_cast<decltype(got) *>(context))[param->name];
            EXPECT_EQ((int64_t)tensor.size(), first * param->shape[1]);
            tensor.insert(tensor.end(), numbers, numbers + num * param->shape[1]);
            return TV_OK;
        }};
    ASSERT_EQ(tv_saved_model_stream(&saved, &visitor), TV_OK);
    EXPECT_EQ(got.size(), (size_t)model.table.num_params);
    for (int i = 0; i < model.table.num_params; i++)
        EXPECT_EQ(got[model.table.params[i].name], values_of(model, i));
    tv_saved_model_close(&saved);
}

// A hundred thousand layers in a configuration, 20 tensors in the file: refused before a table is made.
TEST(SavedModel, AConfigurationIsHeldAgainstTheFiles)
{
    const Model model(TV_GPT2);
    Temporary dir;
    write_tensors(dir.path("model.safetensors"), tensors_of(model));
    dir.write("config.json", R"({"model_type":"gpt2","n_layer":100000,"n_embd":16,"n_head":4,)"
                             R"("n_positions":8,"vocab_size":19,"n_inner":24})");
    tv_saved_model saved = {};
    EXPECT_EQ(tv_saved_model_open(dir.path("model.safetensors").c_str(), nullptr, &saved),
              TV_BAD_FILE);
    expect_message_has("too few for the 100000 layers", tv_error_message());
    EXPECT_EQ(saved.state, nullptr);
}
