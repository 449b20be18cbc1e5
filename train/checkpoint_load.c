/* train/checkpoint_load.c -- from the slices of a checkpoint into the parts that this rank has, whatever mesh wrote
 * them: each rank reads the bytes of its own parts and no others. */
#include "base/clock.h"
#include "base/log.h"
#include "train/checkpoint_internal.h"
#include "train/trainer_internal.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM_BYTES = 256 << 10 }; /* stays in the cache */

int64_t tv_checkpoint_first_step(const struct tv_run *run)
{
    return run->checkpoint == NULL || run->options.is_finetune ? 0 : run->checkpoint->state.step;
}

int64_t tv_checkpoint_consumed(const struct tv_run *run)
{
    return tv_checkpoint_first_step(run) > 0 ? run->checkpoint->state.consumed : 0;
}

/* ---- is it a checkpoint of this run? ---- */

static tv_status_t refuse_size(const struct tv_checkpoint *c, const char *what, int64_t stored,
                               int64_t wanted)
{
    return TV_ERR(TV_INVALID,
                  "%s is of another model: its %s is %" PRId64 ", this run's is %" PRId64
                  "; leave out the flags of the model to take it from the checkpoint",
                  c->path, what, stored, wanted);
}

static tv_status_t check_model(const struct tv_checkpoint *c, const struct tv_model_config *want)
{
    const struct tv_model_config *has = &c->state.model;
    const int has_positions = want->family == TV_GPT2;
    const struct {
        const char *what;
        int64_t stored, wanted;
    } sizes[] = {
        {"number of layers", has->num_layers, want->num_layers},
        {"hidden size", has->hidden_size, want->hidden_size},
        {"number of heads", has->num_heads, want->num_heads},
        {"number of query groups", has->num_kv_heads, want->num_kv_heads},
        {"ffn size", has->ffn_size, want->ffn_size},
        {"vocabulary", has->vocab_size, want->vocab_size},
        {"context", has_positions ? has->max_positions : 0,
         has_positions ? want->max_positions : 0},
        {"number of output matrices beside the embedding", !has->is_tied, !want->is_tied},
    };
    if (has->family != want->family)
        return TV_ERR(TV_INVALID, "%s is of another model: a %s, this run's is a %s", c->path,
                      tv_model_family_name(has->family), tv_model_family_name(want->family));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i].stored != sizes[i].wanted)
            return refuse_size(c, sizes[i].what, sizes[i].stored, sizes[i].wanted);
    }
    return TV_OK;
}

tv_status_t tv_checkpoint_check(const struct tv_checkpoint *c, const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    TV_TRY(check_model(c, &run->model));
    if (!o->is_finetune && !o->is_optimizer_fresh && strcmp(c->state.optimizer, o->optimizer) != 0)
        return TV_ERR(
            TV_INVALID,
            "%s has the moments of --optimizer %s, not of %s; --no-load-optim goes on without "
            "them",
            c->path, c->state.optimizer, o->optimizer);
    return TV_OK;
}

/* ---- reading ---- */

struct reader {
    struct tv_trainer *trainer;
    struct tv_checkpoint *checkpoint;
    float *room; /* [ROOM_BYTES] */
};

/* The stored tensor that a part is read from. */
static tv_status_t find_source(const struct reader *reader, const struct tv_state_part *part,
                               const struct tv_param *param,
                               const struct tv_index_tensor **found_out)
{
    const struct tv_checkpoint *c = reader->checkpoint;
    const struct tv_index_tensor *found = NULL;
    for (const char *const *kind = tv_state_sources(part->kind); *kind != NULL && found == NULL;
         kind++)
        found = tv_index_find(&c->index, *kind, param->name);
    if (found == NULL)
        return TV_ERR(TV_BAD_FILE, "%s/%s: there is no %s of %s", c->path, TV_INDEX_NAME,
                      tv_state_name(part->kind), param->name);
    if (found->num_dims != param->num_dims || found->shape[0] != param->shape[0] ||
        found->shape[1] != (param->num_dims == 1 ? 1 : param->shape[1]))
        return TV_ERR(TV_BAD_FILE, "%s/%s: the %s of %s has another shape than the model's",
                      c->path, TV_INDEX_NAME, found->kind, param->name);
    *found_out = found;
    return TV_OK;
}

/* Elements from the room into a part; those of one row lie side by side in both. */
static tv_status_t put_row(const struct reader *reader, const struct tv_state_part *part,
                           const float *from, int64_t at, int64_t count)
{
    struct tv_trainer *tr = reader->trainer;
    if (tv_state_dtype(tr->run, part->kind) != TV_F32)
        return TV_ERR(TV_INTERNAL, "%s is not float32", tv_state_name(part->kind));
    return tv_stream_copy(tr->stream, (float *)part->data + at, from,
                          (size_t)count * sizeof(float));
}

/* Rows [first, first + num) x columns of a slice, `to` the place of the first element in the part. */
static tv_status_t read_rows(const struct reader *reader, const struct tv_state_part *part,
                             const struct tv_safetensors *file, const struct tv_safetensor *stored,
                             struct tv_safetensors_rect from, int64_t to, int64_t local_cols)
{
    const int64_t room = ROOM_BYTES / (int64_t)sizeof(float);
    const int64_t most_cols = from.num_cols < room ? from.num_cols : room;
    const int64_t most_rows = room / most_cols;
    for (int64_t r = 0; r < from.num_rows; r += most_rows) {
        const int64_t rows = from.num_rows - r < most_rows ? from.num_rows - r : most_rows;
        for (int64_t c = 0; c < from.num_cols; c += most_cols) {
            const int64_t cols = from.num_cols - c < most_cols ? from.num_cols - c : most_cols;
            const struct tv_safetensors_rect rect = {from.first_row + r, rows, from.first_col + c,
                                                     cols};
            TV_TRY(tv_safetensors_read(file, stored, &rect, reader->room, cols));
            for (int64_t i = 0; i < rows; i++)
                TV_TRY(put_row(reader, part, reader->room + i * cols, to + (r + i) * local_cols + c,
                               cols));
            TV_TRY(
                tv_stream_synchronize(reader->trainer->stream)); /* before the room is used again */
        }
    }
    return TV_OK;
}

/* What a stored slice has of a rectangle of a part; *left counts what is still to come. */
static tv_status_t read_overlap(const struct reader *reader, const struct tv_state_part *part,
                                const struct tv_index_tensor *tensor,
                                const struct tv_index_slice *slice, const struct tv_rect *rect,
                                int64_t *left)
{
    const int64_t row = rect->row > slice->row ? rect->row : slice->row;
    const int64_t col = rect->col > slice->col ? rect->col : slice->col;
    const int64_t ends[2][2] = {{rect->row + rect->num_rows, slice->row + slice->num_rows},
                                {rect->col + rect->num_cols, slice->col + slice->num_cols}};
    const int64_t row_end = ends[0][0] < ends[0][1] ? ends[0][0] : ends[0][1];
    const int64_t col_end = ends[1][0] < ends[1][1] ? ends[1][0] : ends[1][1];
    char name[TV_SLICE_NAME_BYTES];
    struct tv_safetensors *file = NULL;
    if (row >= row_end || col >= col_end)
        return TV_OK;
    TV_TRY(tv_checkpoint_shard(reader->checkpoint, slice->shard, &file));
    tv_slice_name(tensor->kind, tensor->name, slice->row, slice->col, name);
    const struct tv_safetensor *stored = tv_safetensors_find(file, name);
    if (stored == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s is gone", tv_safetensors_path(file), name);
    const struct tv_safetensors_rect from = {row - slice->row, row_end - row, col - slice->col,
                                             col_end - col};
    *left -= from.num_rows * from.num_cols;
    const int64_t to =
        rect->local - part->first + (row - rect->row) * rect->local_cols + col - rect->col;
    return read_rows(reader, part, file, stored, from, to, rect->local_cols);
}

static tv_status_t read_part(const struct reader *reader, const struct tv_state_part *part)
{
    const struct tv_trainer *tr = reader->trainer;
    const struct tv_param *param = tr->sharding.locals.params[part->local].param;
    const struct tv_index_tensor *tensor = NULL;
    struct tv_rect rects[TV_MAX_RECTS];
    TV_TRY(find_source(reader, part, param, &tensor));
    const int num = tv_rects_of(param, tr->run->extent.at[TV_TENSOR], tr->here.at[TV_TENSOR],
                                part->first, part->count, rects);
    for (int r = 0; r < num; r++) {
        int64_t left = rects[r].num_rows * rects[r].num_cols;
        for (int s = 0; s < tensor->num_slices && left > 0; s++)
            TV_TRY(read_overlap(reader, part, tensor, &tensor->slices[s], &rects[r], &left));
        if (left != 0)
            return TV_ERR(TV_INTERNAL, "%s %s: %" PRId64 " elements were in no slice", tensor->kind,
                          tensor->name, left);
    }
    return TV_OK;
}

static tv_status_t read_parts(void *context, const struct tv_work *work)
{
    struct reader *reader = context;
    const struct tv_train_options *o = &reader->trainer->run->options;
    struct tv_state_part *parts = NULL;
    int num = 0;
    TV_TRY(tv_state_parts(reader->trainer, &parts, &num));
    tv_status_t status = TV_OK;
    reader->room = malloc(ROOM_BYTES);
    if (reader->room == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%d bytes to load through", ROOM_BYTES);
    for (int i = 0; i < num && status == TV_OK && !tv_work_must_stop(work); i++) {
        if (parts[i].kind == TV_STATE_WEIGHT || (!o->is_finetune && !o->is_optimizer_fresh))
            status = read_part(reader, &parts[i]);
    }
    free(reader->room);
    free(parts);
    return status;
}

/* Another number of samples, or another length, is another order of them. */
static void warn_of_data(const struct tv_trainer *tr, const struct tv_saved_state *state)
{
    if (tv_corpus_num_samples(tr->data) == state->num_samples &&
        tr->run->seq_length == state->seq_length)
        return;
    tv_log(TV_LOG_WARN,
           "the data has %" PRId64 " samples of %" PRId64
           " tokens, the checkpoint's run had %" PRId64 " of %" PRId64
           ": samples come in another order",
           tv_corpus_num_samples(tr->data), tr->run->seq_length, state->num_samples,
           state->seq_length);
}

tv_status_t tv_checkpoint_load(struct tv_trainer *tr)
{
    const struct tv_run *run = tr->run;
    const struct tv_saved_state *state = &run->checkpoint->state;
    struct reader reader = {.trainer = tr, .checkpoint = run->checkpoint};
    const double started = tv_clock_seconds();
    TV_TRY(tv_work_do(tv_mesh_world(tr->mesh), read_parts, &reader));
    for (int i = 0; i < run->checkpoint->index.num_shards; i++) {
        tv_safetensors_close(
            run->checkpoint->files[i]); /* --keep may remove them: do not hold their space */
        run->checkpoint->files[i] = NULL;
    }
    if (tv_trainer_is_root(tr))
        tv_log(TV_LOG_DEBUG, "loaded %" PRId64 " bytes in %.6f s",
               tv_checkpoint_bytes(run->checkpoint), tv_clock_seconds() - started);
    if (run->options.is_finetune)
        return TV_OK;
    tr->num_updates = run->options.is_optimizer_fresh ? 0 : state->num_updates;
    tr->bad_steps.in_a_row = state->bad_in_a_row;
    if (tv_trainer_is_root(tr))
        warn_of_data(tr, state);
    return TV_OK;
}
