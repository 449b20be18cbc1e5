/* model/config.c -- sizes that follow from others, and what cannot be a model. */
#include "model/config.h"
#include <inttypes.h>

const char *tv_model_family_name(tv_model_family_t family)
{
    return family == TV_LLAMA ? "llama" : "gpt2";
}

/* 4 H, or 8/3 H up to a multiple of 64; 0, which the check refuses, when that is beyond an int. */
static int default_ffn_size(const struct tv_model_config *config)
{
    const int64_t hidden = config->hidden_size;
    const int64_t size = config->family == TV_GPT2 ? 4 * hidden : (8 * hidden / 3 + 63) / 64 * 64;
    return size >= 0 && size <= INT32_MAX ? (int)size : 0;
}

void tv_model_config_defaults(struct tv_model_config *config)
{
    if (config->ffn_size == 0)
        config->ffn_size = default_ffn_size(config);
    if (config->num_kv_heads == 0)
        config->num_kv_heads = config->num_heads;
    if (config->norm_eps == 0)
        config->norm_eps = 1e-5;
    if (config->rope_theta == 0)
        config->rope_theta = 10000;
    if (config->init_std == 0)
        config->init_std = 0.02;
}

static tv_status_t check_sizes(const struct tv_model_config *c)
{
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"layers", c->num_layers},         {"hidden size", c->hidden_size},
                 {"attention heads", c->num_heads}, {"kv heads", c->num_kv_heads},
                 {"ffn size", c->ffn_size},         {"vocabulary", c->vocab_size},
                 {"context", c->max_positions}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i].value < 1 || sizes[i].value > INT32_MAX)
            return TV_ERR(TV_INVALID, "a model with %" PRId64 " as its %s", sizes[i].value,
                          sizes[i].name);
    }
    return TV_OK;
}

tv_status_t tv_model_config_check(const struct tv_model_config *c)
{
    TV_TRY(check_sizes(c));
    if (c->hidden_size % c->num_heads != 0)
        return TV_ERR(TV_INVALID, "hidden size %d is not a multiple of %d attention heads",
                      c->hidden_size, c->num_heads);
    if (c->num_heads % c->num_kv_heads != 0)
        return TV_ERR(TV_INVALID,
                      "%d attention heads are not a multiple of %d query groups (kv heads)",
                      c->num_heads, c->num_kv_heads);
    if (!(c->norm_eps > 0) || !(c->init_std >= 0))
        return TV_ERR(TV_INVALID, "norm epsilon %g must be above 0, initial deviation %g not below",
                      c->norm_eps, c->init_std);
    if (c->family == TV_GPT2) {
        if (c->num_kv_heads != c->num_heads)
            return TV_ERR(TV_INVALID, "gpt2 has no query groups: %d of %d heads; use --model llama",
                          c->num_kv_heads, c->num_heads);
        if (!c->is_tied)
            return TV_ERR(
                TV_INVALID,
                "gpt2 ties its embeddings and output weights; use --model llama to untie them");
        return TV_OK;
    }
    if (c->hidden_size / c->num_heads % 2 != 0)
        return TV_ERR(TV_INVALID, "the rotary embedding needs an even head size, not %d / %d = %d",
                      c->hidden_size, c->num_heads, c->hidden_size / c->num_heads);
    if (!(c->rope_theta >= 1))
        return TV_ERR(TV_INVALID, "rotary base %g is below 1", c->rope_theta);
    return TV_OK;
}

tv_status_t tv_model_config_check_tensor(const struct tv_model_config *c, int T)
{
    if (c->num_heads % T != 0)
        return TV_ERR(TV_INVALID,
                      "%d attention heads do not divide over --tp %d; use a divisor of %d",
                      c->num_heads, T, c->num_heads);
    if (c->num_kv_heads % T != 0 && T % c->num_kv_heads != 0)
        return TV_ERR(TV_INVALID,
                      "%d query groups (kv heads) and --tp %d: one must be a multiple of the other",
                      c->num_kv_heads, T);
    if (c->ffn_size % T != 0)
        return TV_ERR(TV_INVALID, "the ffn size %d does not divide over --tp %d", c->ffn_size, T);
    struct tv_param_table table = {0};
    TV_TRY(tv_model_param_table(c, &table));
    const tv_status_t status = tv_param_table_check(&table, T);
    tv_param_table_destroy(&table);
    return status;
}

int64_t tv_model_num_params(const struct tv_model_config *c)
{
    struct tv_param_table table = {0};
    if (tv_model_param_table(c, &table) != TV_OK)
        return 0;
    int64_t count = 0;
    for (int i = 0; i < table.num_params; i++)
        count += tv_param_count(&table.params[i]);
    tv_param_table_destroy(&table);
    return count;
}

double tv_model_flops_per_token(const struct tv_model_config *c, int64_t seq_length)
{
    struct tv_param_table table = {0};
    if (tv_model_param_table(c, &table) != TV_OK)
        return 0;
    double count = 0;
    for (int i = 0; i < table.num_params; i++) {
        const struct tv_param *param = &table.params[i];
        const int is_position_table =
            c->family == TV_GPT2 && param->unit == 0 && !param->is_vocabulary;
        const int is_lookup = param->unit == 0 && param->is_vocabulary && param->tied_unit < 0;
        if (!is_position_table && !is_lookup) /* a tied table is the head's matrix */
            count += (double)tv_param_count(param);
    }
    tv_param_table_destroy(&table);
    return 6 * count + 12.0 * c->num_layers * c->hidden_size * (double)seq_length;
}
