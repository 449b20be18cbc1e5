/* train/batch.c -- the tokens of one micro-batch, on the ranks that need them: ids for the first position, targets
 * for the last. Every rank can find them by itself, since the order is a pure function (data/samples.h). */
#include "train/trainer_internal.h"
#include <string.h>

/* Where the documents of a row start: at its beginning, and behind every end of one. */
static void find_starts(struct tv_trainer *tr, int64_t row)
{
    const int64_t S = tr->run->seq_length, eod = tr->run->options.eod_token;
    int64_t start = 0;
    for (int64_t s = 0; s < S; s++) {
        if (s > 0 && eod >= 0 && tr->sample[s - 1] == eod)
            start = s;
        tr->positions[row * S + s] = (int32_t)(s - start);
        tr->first_keys[row * S + s] = (int32_t)start;
    }
}

/* Row `row` of ids and targets becomes what `sample` [S + 1] holds; -1 there is nothing, nor counted. */
static void set_row(struct tv_trainer *tr, int64_t row)
{
    const struct tv_train_options *o = &tr->run->options;
    const int64_t S = tr->run->seq_length;
    for (int64_t s = 0; s < S; s++) {
        const int32_t id = tr->sample[s], target = tr->sample[s + 1];
        const int is_masked = target == o->mask_token || (o->masks_eod_loss && id == o->eod_token);
        tr->ids[row * S + s] = id < 0 ? 0 : id;
        tr->targets[row * S + s] = is_masked ? -1 : target;
    }
    find_starts(tr, row);
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
    const int64_t per_round = tr->run->micro_batch * tr->run->extent.at[TV_DATA];
    return (int)((tv_corpus_num_samples(tr->evaluated) + per_round - 1) / per_round);
}

static tv_status_t load_eval(struct tv_trainer *tr, int micro)
{
    const int64_t B = tr->run->micro_batch, D = tr->run->extent.at[TV_DATA];
    for (int64_t row = 0; row < B; row++) {
        const int64_t index = ((int64_t)micro * D + tr->here.at[TV_DATA]) * B + row;
        if (index < tv_corpus_num_samples(tr->evaluated))
            TV_TRY(tv_corpus_read(tr->evaluated, index, tr->sample));
        else /* beyond the file: nothing is counted, so it changes no result */
            memset(tr->sample, -1, ((size_t)tr->run->seq_length + 1) * sizeof(*tr->sample));
        set_row(tr, row);
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
        const int64_t sample = tv_corpus_sample_at(tr->data, position);
        tr->sample_ids[micro * run->micro_batch + row] = sample;
        TV_TRY(tv_corpus_read(tr->data, sample, tr->sample));
        set_row(tr, row);
    }
    return TV_OK;
}
