// Scores of the next token against the float64 reference runs, also of models that went through
// exports: a round trip alone would not see two errors that cancel.
#include "temporary.h"
#include "train/generator.h"
#include "train/tokens.h"
#include <cmath>
#include <vector>

namespace
{
std::string golden_folder()
{
    const char *shared = std::getenv("TRIVET_SHARED");
    return std::string(shared != nullptr ? shared : TRIVET_BESIDE_SOURCE "/shared") + "/golden/";
}

struct Golden {
    explicit Golden(const std::string &name) : path(golden_folder() + name)
    {
        tv_tokens *tokens = nullptr;
        EXPECT_EQ(tv_tokens_open((path + "/tokens.bin").c_str(), TV_TOKENS_U16, &tokens), TV_OK);
        ids.resize((size_t)(4 * length));
        EXPECT_EQ(tv_tokens_read(tokens, 0, 4 * length, ids.data()), TV_OK);
        tv_tokens_close(tokens);
        std::ifstream file(path + "/logits.bin", std::ios::binary);
        const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
        logits.resize(bytes.size() / sizeof(float));
        memcpy(logits.data(), bytes.data(), bytes.size());
    }
    static constexpr int64_t length = 32;
    std::string path;
    std::vector<int32_t> ids; // the first sequences: sample i begins at i * length
    std::vector<float> logits;
};

// After prefixes of two sequences.
std::vector<float> scores_of(const std::string &path, const Golden &golden)
{
    tv_saved_model saved = {};
    tv_generator *generator = nullptr;
    EXPECT_EQ(tv_saved_model_open(path.c_str(), nullptr, &saved), TV_OK) << tv_error_message();
    EXPECT_EQ(tv_generator_create(&saved, 1, &generator), TV_OK) << tv_error_message();
    const auto vocab = (size_t)saved.config.vocab_size;
    tv_saved_model_close(&saved);
    std::vector<float> all;
    for (int64_t sample : {0, 3})
        for (int64_t count : {1, 17, 32}) {
            std::vector<float> scores(vocab);
            EXPECT_EQ(tv_generator_next(generator, golden.ids.data() + sample * golden.length,
                                        count, scores.data()),
                      TV_OK)
                << tv_error_message();
            const float *want =
                &golden.logits[(size_t)(sample * golden.length + count - 1) * vocab];
            for (size_t i = 0; i < vocab; i++)
                EXPECT_NEAR(scores[i], want[i], 1e-4) << "sample " << sample << ", " << count;
            all.insert(all.end(), scores.begin(), scores.end());
        }
    tv_generator_destroy(generator);
    return all;
}

tv_status_t keep(void *context, const tv_param *param, int64_t, int64_t num, const float *numbers)
{
    return tv_hf_export_numbers(static_cast<tv_hf_export *>(context), numbers,
                                num * param->shape[1]);
}

void export_model(const std::string &from, const std::string &to, tv_hf_export_form form)
{
    tv_saved_model saved = {};
    tv_hf_export *file = nullptr;
    ASSERT_EQ(tv_saved_model_open(from.c_str(), nullptr, &saved), TV_OK) << tv_error_message();
    ASSERT_EQ(tv_hf_export_begin(to.c_str(), &saved.config, &saved.table, form, &file), TV_OK);
    const tv_saved_model_visitor visitor = {file, keep};
    ASSERT_EQ(tv_saved_model_stream(&saved, &visitor), TV_OK);
    ASSERT_EQ(tv_hf_export_finish(&file), TV_OK) << tv_error_message();
    tv_saved_model_close(&saved);
}

class Generator : public testing::TestWithParam<const char *>
{
};
INSTANTIATE_TEST_SUITE_P(Golden, Generator,
                         testing::Values("gpt2-tied", "llama-gqa", "llama-tied-odd", "gpt2-masked"),
                         [](const auto &which) {
                             std::string name = which.param;
                             for (char &c : name)
                                 c = c == '-' ? '_' : c;
                             return name;
                         });
} // namespace

TEST_P(Generator, ScoresAreTheReferencesAlsoAfterExports)
{
    const Golden golden(GetParam());
    const Temporary dir;
    const std::vector<float> direct = scores_of(golden.path, golden);
    export_model(golden.path, dir.path("shards"), {TV_HF_FP32, 50000});
    export_model(dir.path("shards"), dir.path("one"), {});
    EXPECT_EQ(scores_of(dir.path("shards"), golden), direct);
    EXPECT_EQ(scores_of(dir.path("one"), golden), direct);
    EXPECT_EQ(dir.read("one/model.safetensors"),
              (std::string{std::istreambuf_iterator<char>(
                               std::ifstream(golden.path + "/model.safetensors").rdbuf()),
                           {}}));
}

TEST_P(Generator, LongTextIsSeenThroughTheLastWindow)
{
    const Golden golden(GetParam());
    tv_saved_model saved = {};
    tv_generator *generator = nullptr;
    ASSERT_EQ(tv_saved_model_open(golden.path.c_str(), nullptr, &saved), TV_OK);
    ASSERT_EQ(tv_generator_create(&saved, 1, &generator), TV_OK);
    const int64_t context = saved.config.max_positions, count = 100;
    ASSERT_LT(context, count);
    std::vector<float> all((size_t)saved.config.vocab_size), last = all;
    ASSERT_EQ(tv_generator_next(generator, golden.ids.data(), count, all.data()), TV_OK);
    ASSERT_EQ(
        tv_generator_next(generator, golden.ids.data() + count - context, context, last.data()),
        TV_OK);
    EXPECT_EQ(all, last);
    const int32_t bad = (int32_t)saved.config.vocab_size;
    EXPECT_EQ(tv_generator_next(generator, &bad, 1, all.data()), TV_INVALID);
    EXPECT_EQ(tv_generator_next(generator, &bad, 0, all.data()), TV_INVALID);
    tv_saved_model_close(&saved);
    tv_generator_destroy(generator);
}

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    if (!std::filesystem::is_directory(golden_folder())) {
        std::printf("skipped: no reference runs at %s; set TRIVET_SHARED\n",
                    golden_folder().c_str());
        return 77;
    }
    return RUN_ALL_TESTS();
}
