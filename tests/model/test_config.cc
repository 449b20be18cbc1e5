/* Sizes, refusals and the parameter table: totals of models that everybody knows. */
#include "model/config.h"
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace
{

struct tv_model_config make(tv_model_family_t family, int layers, int hidden, int heads,
                            int64_t vocab)
{
    struct tv_model_config config = {};
    config.family = family;
    config.num_layers = layers;
    config.hidden_size = hidden;
    config.num_heads = heads;
    config.vocab_size = vocab;
    config.max_positions = 1024;
    config.is_tied = family == TV_GPT2;
    return config;
}

struct tv_model_config gpt2_124m()
{
    struct tv_model_config config = make(TV_GPT2, 12, 768, 12, 50257);
    tv_model_config_defaults(&config);
    return config;
}

struct tv_model_config llama_3_8b()
{
    struct tv_model_config config = make(TV_LLAMA, 32, 4096, 32, 128256);
    config.num_kv_heads = 8;
    config.ffn_size = 14336;
    tv_model_config_defaults(&config);
    return config;
}

int64_t num_weights(const struct tv_model_config &config)
{
    struct tv_param_table table = {};
    EXPECT_EQ(TV_OK, tv_model_param_table(&config, &table));
    int64_t num = 0;
    for (int i = 0; i < table.num_params; i++)
        num += tv_param_count(&table.params[i]);
    tv_param_table_destroy(&table);
    return num;
}

TEST(ParamTable, TotalsOfKnownModels)
{
    EXPECT_EQ(124439808, num_weights(gpt2_124m()));
    struct tv_model_config xl = make(TV_GPT2, 48, 1600, 25, 50257);
    tv_model_config_defaults(&xl);
    EXPECT_EQ(1557611200, num_weights(xl));
    struct tv_model_config llama_7b = make(TV_LLAMA, 32, 4096, 32, 32000);
    tv_model_config_defaults(&llama_7b); /* 8/3 of 4096, rounded up to 64: 10944 */
    EXPECT_EQ(10944, llama_7b.ffn_size);
    llama_7b.ffn_size = 11008;
    EXPECT_EQ(6738415616, num_weights(llama_7b));
    EXPECT_EQ(8030261248, num_weights(llama_3_8b()));
}

const struct tv_param *find(const struct tv_param_table &table, const char *name)
{
    for (int i = 0; i < table.num_params; i++)
        if (std::strcmp(table.params[i].name, name) == 0)
            return &table.params[i];
    ADD_FAILURE() << name << " is not in the table";
    return &table.params[0];
}

struct Row {
    const char *name;
    int unit, tied_unit, split_dim, num_blocks, num_parts, is_vocabulary, has_decay;
    tv_init_t init;
    std::vector<int64_t> shape;
};

void expect_rows(const struct tv_model_config &config, const std::vector<Row> &rows)
{
    struct tv_param_table table = {};
    ASSERT_EQ(TV_OK, tv_model_param_table(&config, &table));
    for (const Row &row : rows) {
        const struct tv_param *param = find(table, row.name);
        EXPECT_EQ(row.unit, param->unit) << row.name;
        EXPECT_EQ(row.tied_unit, param->tied_unit) << row.name;
        EXPECT_EQ(row.split_dim, param->split_dim) << row.name;
        EXPECT_EQ(row.num_blocks, param->num_blocks) << row.name;
        EXPECT_EQ(row.num_parts, param->num_parts) << row.name;
        EXPECT_EQ(row.is_vocabulary, param->is_vocabulary) << row.name;
        EXPECT_EQ(row.has_decay, param->has_decay) << row.name;
        EXPECT_EQ(row.init, param->init) << row.name;
        EXPECT_EQ((int)row.shape.size(), param->num_dims) << row.name;
        for (size_t d = 0; d < row.shape.size(); d++)
            EXPECT_EQ(row.shape[d], param->shape[d]) << row.name;
    }
    for (int i = 1; i < table.num_params; i++)
        EXPECT_LE(table.params[i - 1].unit, table.params[i].unit) << "not in order of units";
    EXPECT_EQ(config.num_layers + 2, table.num_units);
    tv_param_table_destroy(&table);
}

TEST(ParamTable, Gpt2Rows)
{
    const tv_init_t normal = TV_INIT_NORMAL, residual = TV_INIT_NORMAL_RESIDUAL;
    const tv_init_t ones = TV_INIT_ONES, zeros = TV_INIT_ZEROS;
    expect_rows(gpt2_124m(),
                {{"transformer.wte.weight", 0, 13, 0, 1, 0, 1, 1, normal, {50257, 768}},
                 {"transformer.wpe.weight", 0, -1, -1, 1, 0, 0, 1, normal, {1024, 768}},
                 {"transformer.h.0.ln_1.weight", 1, -1, -1, 1, 0, 0, 0, ones, {768}},
                 {"transformer.h.11.ln_2.bias", 12, -1, -1, 1, 0, 0, 0, zeros, {768}},
                 {"transformer.h.3.attn.c_attn.weight", 4, -1, 1, 3, 0, 0, 1, normal, {768, 2304}},
                 {"transformer.h.3.attn.c_attn.bias", 4, -1, 0, 3, 0, 0, 0, zeros, {2304}},
                 {"transformer.h.3.attn.c_proj.weight", 4, -1, 0, 1, 0, 0, 1, residual, {768, 768}},
                 {"transformer.h.3.attn.c_proj.bias", 4, -1, -1, 1, 0, 0, 0, zeros, {768}},
                 {"transformer.h.3.mlp.c_fc.weight", 4, -1, 1, 1, 0, 0, 1, normal, {768, 3072}},
                 {"transformer.h.3.mlp.c_fc.bias", 4, -1, 0, 1, 0, 0, 0, zeros, {3072}},
                 {"transformer.h.3.mlp.c_proj.weight", 4, -1, 0, 1, 0, 0, 1, residual, {3072, 768}},
                 {"transformer.h.3.mlp.c_proj.bias", 4, -1, -1, 1, 0, 0, 0, zeros, {768}},
                 {"transformer.ln_f.bias", 13, -1, -1, 1, 0, 0, 0, zeros, {768}}});
}

TEST(ParamTable, LlamaRows)
{
    const tv_init_t normal = TV_INIT_NORMAL, residual = TV_INIT_NORMAL_RESIDUAL;
    expect_rows(
        llama_3_8b(),
        {{"model.embed_tokens.weight", 0, -1, 0, 1, 0, 1, 1, normal, {128256, 4096}},
         {"model.layers.0.input_layernorm.weight", 1, -1, -1, 1, 0, 0, 0, TV_INIT_ONES, {4096}},
         {"model.layers.9.self_attn.q_proj.weight", 10, -1, 0, 1, 0, 0, 1, normal, {4096, 4096}},
         {"model.layers.9.self_attn.k_proj.weight", 10, -1, 0, 1, 8, 0, 1, normal, {1024, 4096}},
         {"model.layers.9.self_attn.v_proj.weight", 10, -1, 0, 1, 8, 0, 1, normal, {1024, 4096}},
         {"model.layers.9.self_attn.o_proj.weight", 10, -1, 1, 1, 0, 0, 1, residual, {4096, 4096}},
         {"model.layers.9.mlp.gate_proj.weight", 10, -1, 0, 1, 0, 0, 1, normal, {14336, 4096}},
         {"model.layers.9.mlp.up_proj.weight", 10, -1, 0, 1, 0, 0, 1, normal, {14336, 4096}},
         {"model.layers.9.mlp.down_proj.weight", 10, -1, 1, 1, 0, 0, 1, residual, {4096, 14336}},
         {"model.norm.weight", 33, -1, -1, 1, 0, 0, 0, TV_INIT_ONES, {4096}},
         {"lm_head.weight", 33, -1, 0, 1, 0, 1, 1, normal, {128256, 4096}}});
}

TEST(Flops, CountWhatIsMultiplied)
{
    /* 6 N + 12 L C S with N = all but the position table; the tied table is the head. */
    EXPECT_EQ(6.0 * (124439808 - 1024 * 768) + 12.0 * 12 * 768 * 1024,
              tv_model_flops_per_token(&(const struct tv_model_config &)gpt2_124m(), 1024));
    /* untied: the input table is only looked up */
    const struct tv_model_config llama = llama_3_8b();
    EXPECT_EQ(6.0 * (8030261248 - 128256L * 4096) + 12.0 * 32 * 4096 * 2048,
              tv_model_flops_per_token(&llama, 2048));
}

struct Refusal {
    const char *says; /* part of the sentence; NULL: accepted */
    int is_llama;
    std::function<void(struct tv_model_config *)> change;
};

TEST(Config, RefusesWhatCannotBeAModel)
{
    using Config = struct tv_model_config;
    const std::vector<Refusal> refusals = {
        {nullptr, 0, [](Config *) {}},
        {nullptr, 1, [](Config *) {}},
        {"0 as its layers", 0, [](Config *c) { c->num_layers = 0; }},
        {"-1 as its vocabulary", 0, [](Config *c) { c->vocab_size = -1; }},
        {"4294967296 as its vocabulary", 0, [](Config *c) { c->vocab_size = 1LL << 32; }},
        {"not a multiple of 7", 0, [](Config *c) { c->num_heads = c->num_kv_heads = 7; }},
        {"32 attention heads are not a multiple of 5", 1, [](Config *c) { c->num_kv_heads = 5; }},
        {"no query groups", 0, [](Config *c) { c->num_kv_heads = 1; }},
        {"gpt2 ties", 0, [](Config *c) { c->is_tied = 0; }},
        {"even head size", 1,
         [](Config *c) {
             c->hidden_size = 96;
             c->num_kv_heads = 32;
         }},
        {"rotary base", 1, [](Config *c) { c->rope_theta = 0.5; }},
        {"epsilon", 1, [](Config *c) { c->norm_eps = -1; }},
    };
    for (const Refusal &refusal : refusals) {
        struct tv_model_config config = refusal.is_llama ? llama_3_8b() : gpt2_124m();
        refusal.change(&config);
        const tv_status_t status = tv_model_config_check(&config);
        if (refusal.says == nullptr) {
            EXPECT_EQ(TV_OK, status) << tv_error_message();
            continue;
        }
        EXPECT_EQ(TV_INVALID, status) << refusal.says;
        EXPECT_NE(nullptr, std::strstr(tv_error_message(), refusal.says)) << tv_error_message();
    }
}

TEST(Config, SizesBeyondAnIntAreRefusedNotWrapped)
{
    struct tv_model_config config =
        make(TV_GPT2, 1, (1 << 30) + 16, 1, 10); /* 4 H = 64 in 32 bits */
    tv_model_config_defaults(&config);
    EXPECT_EQ(TV_INVALID, tv_model_config_check(&config));
    config = make(TV_LLAMA, 1, INT32_MAX - 1, 1, 10);
    tv_model_config_defaults(&config);
    EXPECT_EQ(TV_INVALID, tv_model_config_check(&config));
}

TEST(Config, WhichTensorSizesDivideIt)
{
    struct tv_model_config config = llama_3_8b(); /* 32 heads, 8 kv heads, ffn 14336 */
    for (const int T : {1, 2, 4, 8, 16, 32})
        EXPECT_EQ(TV_OK, tv_model_config_check_tensor(&config, T)) << T;
    EXPECT_EQ(TV_INVALID, tv_model_config_check_tensor(&config, 3));
    EXPECT_EQ(TV_INVALID, tv_model_config_check_tensor(&config, 64));
    config.num_heads = config.num_kv_heads = 24;
    config.num_kv_heads = 3;
    EXPECT_EQ(TV_INVALID, tv_model_config_check_tensor(&config, 2));
    EXPECT_NE(nullptr, std::strstr(tv_error_message(), "3 query groups")) << tv_error_message();
    config = gpt2_124m();
    config.ffn_size = 3073;
    EXPECT_EQ(TV_INVALID, tv_model_config_check_tensor(&config, 2));
    EXPECT_NE(nullptr, std::strstr(tv_error_message(), "ffn size 3073")) << tv_error_message();
}

} // namespace
