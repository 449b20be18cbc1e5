/* model/config.h -- the shape of a model: GPT-2 (LayerNorm, learned positions, gelu, biases, tied
 * head) or Llama (RMSNorm, rotary, SwiGLU, grouped-query attention, no biases). */
#ifndef TV_MODEL_CONFIG_H
#define TV_MODEL_CONFIG_H
#include "base/param.h"
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
typedef enum { TV_GPT2, TV_LLAMA } tv_model_family_t;
const char *tv_model_family_name(tv_model_family_t family); /* "gpt2", "llama" */

struct tv_model_config {
    tv_model_family_t family;
    int num_layers, hidden_size, num_heads, num_kv_heads, ffn_size;
    int64_t vocab_size;
    int max_positions; /* the model's context; GPT-2's position table has this many rows */
    int is_tied;       /* output matrix = input embedding */
    double norm_eps, rope_theta;
    double init_std; /* --init-method-std, 0.02 */
};
/* Sizes of family: fills ffn_size (4 H, or 8/3 H rounded up to 64), num_kv_heads, eps, theta where
 * they are 0. */
void tv_model_config_defaults(struct tv_model_config *config);
/* Errors: TV_INVALID: sizes < 1, hidden not a multiple of heads, heads of kv heads, odd head size
 * under rotary, GPT-2 with kv heads != heads or an untied head (Hugging Face's GPT-2 has no such
 * file). */
TV_MUST_CHECK tv_status_t tv_model_config_check(const struct tv_model_config *config);
/* Can T ranks share it? Errors: TV_INVALID: heads, ffn not multiples of T; kv heads neither a
 * multiple nor a divisor of T. */
TV_MUST_CHECK tv_status_t tv_model_config_check_tensor(const struct tv_model_config *config, int T);
/* The ONE parameter table, whole model, Hugging Face names. */
TV_MUST_CHECK tv_status_t tv_model_param_table(const struct tv_model_config *config,
                                               struct tv_param_table *table_out);
/* All weights; 0 when the table cannot be made. */
int64_t tv_model_num_params(const struct tv_model_config *config);
/* Model FLOPs of one token, forward and backward: 6 N + 12 L C S, where N counts the weights that
 * are multiplied: all but the position table and an embedding table that is not also the head's
 * matrix. */
double tv_model_flops_per_token(const struct tv_model_config *config, int64_t seq_length);
TV_END_C
#endif
