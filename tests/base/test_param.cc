// Cutting weights over the tensor axis: every element exactly once per set of holders, and the same initial values.
#include "base/param.h"
#include "base/rng.h"
#include <cstring>
#include <gtest/gtest.h>
#include <vector>

namespace
{
tv_param make(const char *name, int64_t rows, int64_t cols, int split_dim)
{
    tv_param p = {};
    std::strncpy(p.name, name, sizeof(p.name) - 1);
    p.tied_unit = -1;
    p.num_dims = cols == 0 ? 1 : 2;
    p.shape[0] = rows;
    p.shape[1] = cols == 0 ? 1 : cols;
    p.split_dim = split_dim;
    p.num_blocks = 1;
    return p;
}

// Scatter a counted-up global tensor to all ranks and gather it again: every element comes back, and each piece is
// counted by exactly one of its holders.
void expect_round_trip(const tv_param &p, int T)
{
    const int64_t n = tv_param_count(&p);
    std::vector<float> global((size_t)n), back((size_t)n, -1.0f);
    for (int64_t i = 0; i < n; i++)
        global[(size_t)i] = (float)i + 1;
    std::vector<int> counted((size_t)n, 0);
    for (int t = 0; t < T; t++) {
        std::vector<float> local((size_t)tv_param_local_count(&p, T), 0.0f);
        tv_param_scatter(&p, T, t, global.data(), local.data());
        tv_param_gather(&p, T, t, local.data(), back.data());
        int first = -1, num = 0;
        tv_param_holders(&p, T, t, &first, &num);
        ASSERT_LE(first, t);
        ASSERT_LT(t, first + num);
        for (float value : local)
            if (t == first && value > 0)
                counted[(size_t)value - 1]++;
    }
    EXPECT_EQ(back, global) << p.name << " T=" << T;
    for (int64_t i = 0; i < n; i++)
        ASSERT_EQ(counted[(size_t)i], 1) << p.name << " element " << i << " T=" << T;
}
} // namespace

TEST(Param, EveryKindOfCutRoundTrips)
{
    tv_param fused = make("c_attn.weight", 4, 48, 1);
    fused.num_blocks = 3;
    tv_param fused_bias = make("c_attn.bias", 48, 0, 0);
    fused_bias.num_blocks = 3;
    tv_param kv = make("k_proj.weight", 8, 5, 0);
    kv.num_parts = 2;
    tv_param vocabulary = make("wte.weight", 97, 3, 0);
    vocabulary.is_vocabulary = 1;
    for (int T : {1, 2, 4, 8}) {
        expect_round_trip(make("replicated", 7, 3, -1), T);
        expect_round_trip(make("rows", 16, 3, 0), T);
        expect_round_trip(make("cols", 3, 16, 1), T);
        expect_round_trip(fused, T);
        expect_round_trip(fused_bias, T);
        expect_round_trip(kv, T);
        expect_round_trip(vocabulary, T);
    }
}

TEST(Param, FusedBlocksKeepTheirOrder)
{
    tv_param fused = make("c_attn.bias", 12, 0, 0);
    fused.num_blocks = 3; // q 0..3, k 4..7, v 8..11
    std::vector<float> global(12), local(6);
    for (int i = 0; i < 12; i++)
        global[(size_t)i] = (float)i;
    tv_param_scatter(&fused, 2, 1, global.data(), local.data());
    EXPECT_EQ(local, (std::vector<float>{2, 3, 6, 7, 10, 11}));
}

TEST(Param, InitialValuesDoNotDependOnTheMesh)
{
    tv_param fused = make("h.0.attn.c_attn.weight", 6, 48, 1);
    fused.num_blocks = 3;
    fused.init = TV_INIT_NORMAL;
    tv_param vocabulary = make("wte.weight", 97, 3, 0);
    vocabulary.is_vocabulary = 1;
    vocabulary.init = TV_INIT_NORMAL;
    for (const tv_param &p : {fused, vocabulary}) {
        std::vector<float> whole((size_t)tv_param_count(&p));
        tv_param_init(&p, 1, 0, 1234, 0.02, 12, 1, whole.data());
        for (int T : {2, 4, 8}) {
            std::vector<float> back(whole.size());
            for (int t = 0; t < T; t++) {
                std::vector<float> local((size_t)tv_param_local_count(&p, T), 7.0f);
                tv_param_init(&p, T, t, 1234, 0.02, 12, 2, local.data());
                tv_param_gather(&p, T, t, local.data(), back.data());
            }
            EXPECT_EQ(back, whole) << p.name;
        }
    }
}

TEST(Param, InitialValuesDoNotDependOnTheThreads)
{
    tv_param table =
        make("wpe.weight", 131, 301, 0); // more than one thread takes; rows of odd length
    table.init = TV_INIT_NORMAL;
    std::vector<float> one((size_t)tv_param_count(&table), 9.0f), three(one);
    tv_param_init(&table, 1, 0, 7, 0.02, 12, 1, one.data());
    tv_param_init(&table, 1, 0, 7, 0.02, 12, 3, three.data());
    EXPECT_EQ(one, three);
    const uint64_t key = tv_rng_key(7, "wpe.weight");
    for (size_t i = 0; i < one.size(); i++)
        ASSERT_EQ((float)(0.02 * tv_rng_normal(key, i)), one[i]) << i;
}

TEST(Param, PaddingRowsAreZeroAndBelongToNoSlice)
{
    tv_param vocabulary = make("wte.weight", 5, 2, 0);
    vocabulary.is_vocabulary = 1;
    vocabulary.init = TV_INIT_ONES;
    std::vector<float> local(4, 9.0f);
    tv_param_init(&vocabulary, 4, 2, 1, 0.02, 1, 1,
                  local.data()); // rows 4, 5: one true, one padding
    EXPECT_EQ(local, (std::vector<float>{1, 1, 0, 0}));
    tv_param_slice slices[8];
    EXPECT_EQ(tv_param_slices(&vocabulary, 4, 3, slices, 8), 0);
}

TEST(Param, ATableThatCannotBeCutIsRefusedByName)
{
    tv_param rows = make("mlp.c_fc.bias", 6, 0, 0);
    tv_param_table table = {1, &rows, 3};
    EXPECT_EQ(tv_param_table_check(&table, 2), TV_OK);
    EXPECT_EQ(tv_param_table_check(&table, 4), TV_INVALID);
    EXPECT_NE(std::strstr(tv_error_message(), "mlp.c_fc.bias"), nullptr);
}
