/* train/batch.c -- the tokens of one micro-batch, on the ranks that need them: ids for the first position, targets
 * for the last. Every rank can find them by itself, since the order is a pure function (data/samples.h). */
#include "train/trainer_internal.h"
#include <string.h>

/* Row `row` of ids and targets becomes sample number `index` of `tokens`. */
static tv_status_t load_row(struct tv_trainer *tr, struct tv_tokens *tokens, int64_t index,
                            int64_t row)
{
    const int64_t S = tr->run->seq_length;
    const int64_t mask = tr->run->options.mask_token;
    int32_t *targets = tr->targets + row * S;
    TV_TRY(tv_tokens_read(tokens, index * S, S + 1, tr->sample));
    memcpy(tr->ids + row * S, tr->sample, (size_t)S * sizeof(int32_t));
    for (int64_t s = 0; s < S; s++)
        targets[s] = tr->sample[s + 1] == mask ? -1 : tr->sample[s + 1];
    return TV_OK;
}

/* A row beyond the validation file: its targets are not counted, so it changes no result. */
static void clear_row(struct tv_trainer *tr, int64_t row)
{
    const int64_t S = tr->run->seq_length;
    for (int64_t s = 0; s < S; s++) {
        tr->ids[row * S + s] = 0;
        tr->targets[row * S + s] = -1;
    }
}

int64_t tv_batch_counted(const struct tv_trainer *tr)
{
    int64_t counted = 0;
    for (int64_t i = 0; i < tr->run->micro_batch * tr->run->seq_length; i++)
        counted += tr->targets[i] >= 0;
    return counted;
}

int tv_batch_eval_micro(const struct tv_trainer *tr)
{
    const int64_t samples =
        tv_samples_count(tv_tokens_count(tr->valid_tokens), tr->run->seq_length);
    const int64_t per_round = tr->run->micro_batch * tr->run->extent.at[TV_DATA];
    return (int)((samples + per_round - 1) / per_round);
}

static tv_status_t load_eval(struct tv_trainer *tr, int micro)
{
    const int64_t B = tr->run->micro_batch, D = tr->run->extent.at[TV_DATA];
    const int64_t samples =
        tv_samples_count(tv_tokens_count(tr->valid_tokens), tr->run->seq_length);
    for (int64_t row = 0; row < B; row++) {
        const int64_t index = ((int64_t)micro * D + tr->here.at[TV_DATA]) * B + row;
        if (index < samples)
            TV_TRY(load_row(tr, tr->valid_tokens, index, row));
        else
            clear_row(tr, row);
    }
    return TV_OK;
}

tv_status_t tv_batch_load(struct tv_trainer *tr, int micro)
{
    if (tr->step == 0)
        return load_eval(tr, micro);
    const struct tv_run *run = tr->run;
    for (int64_t row = 0; row < run->micro_batch; row++) {
        const int64_t position =
            tv_sample_position(tr->consumed, tr->global_batch, run->extent.at[TV_DATA],
                               tr->here.at[TV_DATA], run->micro_batch, micro, row);
        const int64_t index = tv_sample_at(&tr->order, position);
        tr->sample_ids[micro * run->micro_batch + row] = index;
        TV_TRY(load_row(tr, tr->tokens, index, row));
    }
    return TV_OK;
}
