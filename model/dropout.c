/* model/dropout.c -- where a layer drops, and the key of each mask.
 *
 * As GPT-2 does: the sum of embeddings, the attention's weights, and what the attention and the
 * feed-forward part add to the residual stream. A mask is a function of (seed, step, unit, kind)
 * and of the element's place in the global batch and the model, and of nothing else: no mesh,
 * schedule, size of a micro-batch or recomputation changes it, and none is kept. */
#include "base/rng.h"
#include "model/model_internal.h"
#include <inttypes.h>
#include <stdio.h>

static const char *const kind_names[] = {[TV_DROPOUT_EMBEDDING] = "embedding",
                                         [TV_DROPOUT_ATTENTION] = "attention",
                                         [TV_DROPOUT_MID] = "mid",
                                         [TV_DROPOUT_FF] = "ff"};

struct tv_dropout tv_pass_dropout(const struct tv_pass *pass, enum tv_dropout_kind kind)
{
    const struct tv_model_args *args = &pass->model->args;
    const struct tv_model_sizes *s = pass->sizes;
    const int is_attention = kind == TV_DROPOUT_ATTENTION;
    const double p = is_attention ? args->attention_dropout : args->hidden_dropout;
    char name[64];
    if (p == 0 || pass->step == 0)
        return (struct tv_dropout){0};
    snprintf(name, sizeof(name), "dropout.%s.%d.%" PRId64, kind_names[kind], pass->unit->index,
             pass->step);
    return (struct tv_dropout){
        .key = tv_rng_key(args->seed, name),
        .threshold = (uint32_t)(p * 0x1p32),
        .scale = (float)(1 / (1 - p)),
        .first_token = pass->first_token + (is_attention ? 0 : s->own.first),
        .first_plane = is_attention ? s->t * s->num_heads : 0,
    };
}

tv_status_t tv_unit_drop(const struct tv_pass *pass, enum tv_dropout_kind kind, void *y)
{
    const struct tv_dropout_args args = {.rows = pass->sizes->own.num,
                                         .cols = pass->sizes->C,
                                         .dropout = tv_pass_dropout(pass, kind),
                                         .x = y,
                                         .y = y};
    if (args.dropout.threshold == 0)
        return TV_OK;
    return pass->axis->kernels->dropout(pass->axis->stream, &args);
}

tv_status_t tv_unit_branch_gradient(const struct tv_pass *pass, enum tv_dropout_kind kind,
                                    const void *dy)
{
    const struct tv_model_sizes *s = pass->sizes;
    void *dropped = pass->scratch + pass->model->layout.own;
    const struct tv_dropout_args args = {.rows = s->own.num,
                                         .cols = s->C,
                                         .dropout = tv_pass_dropout(pass, kind),
                                         .x = dy,
                                         .y = dropped};
    if (args.dropout.threshold > 0) {
        TV_TRY(pass->axis->kernels->dropout(pass->axis->stream, &args));
        dy = dropped;
    }
    return tv_row_gather_start(pass->axis, s->rows, s->C, dy,
                               pass->scratch + pass->model->layout.whole, &pass->model->gather);
}
