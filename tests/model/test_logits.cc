// Logits of a row, read whatever the cut of the vocabulary: their softmax makes the loss.
#include "model/model.h"
#include "tensor/axis_ranks.h"
#include <cmath>

namespace
{
constexpr int rows = 12, vocab = 19; // 19 divides by nothing

struct tv_model_config small(tv_model_family_t family)
{
    struct tv_model_config c = {};
    c.family = family;
    c.num_layers = 1;
    c.hidden_size = 16;
    c.num_heads = 4;
    c.vocab_size = vocab;
    c.max_positions = 8;
    c.is_tied = family == TV_GPT2;
    c.init_std = 0.5;
    tv_model_config_defaults(&c);
    return c;
}

struct tv_model *create(const struct tv_tensor_axis &axis, const struct tv_model_config &config,
                        struct tv_model_chunk chunk)
{
    struct tv_model_args args = {};
    args.config = config;
    args.axis = axis;
    args.micro_batch = 2;
    args.seq_length = 6;
    args.num_chunks = 1;
    args.chunks = &chunk;
    args.seed = 3;
    struct tv_model *model = nullptr;
    EXPECT_EQ(TV_OK, tv_model_create(&args, &model)) << tv_error_message();
    return model;
}

std::vector<float> forward(const struct tv_tensor_axis &axis, const struct tv_model_config &config)
{
    std::vector<int32_t> ids, targets;
    for (int i = 0; i < rows; i++) {
        ids.push_back(i * 7 % vocab);
        targets.push_back(i == 4 ? -1 : i * 5 % vocab);
    }
    struct tv_model *model = create(axis, config, {0, 3, 1, 0});
    double loss = -1, want = 0;
    struct tv_model_call call = {};
    call.ids = ids.data();
    call.targets = targets.data();
    call.loss_sum_out = &loss;
    EXPECT_EQ(TV_OK, tv_model_forward(model, &call)) << tv_error_message();
    std::vector<float> all;
    for (int r = 0; r < rows; r++) {
        std::vector<float> logits(vocab, NAN);
        EXPECT_EQ(TV_OK, tv_model_read_logits(model, &call, r, logits.data()));
        double sum = 0;
        for (float x : logits)
            sum += std::exp((double)x);
        if (targets[(size_t)r] >= 0)
            want += std::log(sum) - (double)logits[(size_t)targets[(size_t)r]];
        all.insert(all.end(), logits.begin(), logits.end());
    }
    EXPECT_NEAR(loss, want, 1e-4);
    EXPECT_EQ(TV_INVALID, tv_model_read_logits(model, &call, rows, all.data()));
    EXPECT_EQ(TV_INVALID, tv_model_read_logits(model, &call, -1, all.data()));
    tv_model_destroy(model);
    return all;
}
} // namespace

TEST(Logits, AreThoseOfTheLossOnEveryCutOfTheVocabulary)
{
    for (tv_model_family_t family : {TV_GPT2, TV_LLAMA}) {
        const struct tv_model_config config = small(family);
        std::vector<float> whole;
        for (int T : {1, 2, 4})
            run_axis(T, tv_kernels_cpu(TV_F32), [&](const struct tv_tensor_axis &axis) {
                const std::vector<float> got = forward(axis, config);
                if (T == 1)
                    whole = got;
                for (size_t i = 0; i < whole.size(); i++)
                    ASSERT_NEAR(got[i], whole[i], 1e-4) << i << " of T = " << T;
            });
        ASSERT_EQ(whole.size(), (size_t)(rows * vocab));
    }
}

TEST(Logits, AChunkWithoutTheHeadHasNone)
{
    run_axis(1, tv_kernels_cpu(TV_F32), [&](const struct tv_tensor_axis &axis) {
        struct tv_model *model = create(axis, small(TV_GPT2), {0, 2, 1, 0});
        float logits[vocab];
        const struct tv_model_call call = {};
        EXPECT_EQ(TV_INVALID, tv_model_read_logits(model, &call, 0, logits));
        tv_model_destroy(model);
    });
}
