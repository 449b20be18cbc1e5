/* train/checkpoint_rows.c -- a logical tensor of a checkpoint, row by row, whatever mesh wrote its slices. */
#include "train/checkpoint_internal.h"
#include <inttypes.h>

static tv_status_t find_slice(struct tv_checkpoint *c, const struct tv_index_tensor *tensor,
                              const struct tv_index_slice *slice, struct tv_safetensors **file_out,
                              const struct tv_safetensor **stored_out)
{
    char name[TV_SLICE_NAME_BYTES];
    TV_TRY(tv_checkpoint_shard(c, slice->shard, file_out));
    tv_slice_name(tensor->kind, tensor->name, slice->row, slice->col, name);
    *stored_out = tv_safetensors_find(*file_out, name);
    if (*stored_out == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s is gone", tv_safetensors_path(*file_out), name);
    return TV_OK;
}

tv_status_t tv_checkpoint_read_rows(struct tv_checkpoint *c, const struct tv_index_tensor *tensor,
                                    int64_t first, int64_t num, float *out)
{
    const int64_t cols = tensor->num_dims == 2 ? tensor->shape[1] : 1;
    int64_t left = num * cols;
    for (int i = 0; i < tensor->num_slices && left > 0; i++) {
        const struct tv_index_slice *slice = &tensor->slices[i];
        const int64_t end = slice->row + slice->num_rows;
        const int64_t from = first > slice->row ? first : slice->row;
        const int64_t to = first + num < end ? first + num : end;
        struct tv_safetensors *file = NULL;
        const struct tv_safetensor *stored = NULL;
        if (from >= to)
            continue;
        TV_TRY(find_slice(c, tensor, slice, &file, &stored));
        const struct tv_safetensors_rect rect = {from - slice->row, to - from, 0, slice->num_cols};
        TV_TRY(tv_safetensors_read(file, stored, &rect, out + (from - first) * cols + slice->col,
                                   cols));
        left -= rect.num_rows * rect.num_cols;
    }
    if (left != 0) /* the index was proved to cover it */
        return TV_ERR(TV_INTERNAL, "%s %s: %" PRId64 " elements were in no slice", tensor->kind,
                      tensor->name, left);
    return TV_OK;
}

void tv_checkpoint_forget(struct tv_checkpoint *c, const struct tv_index_tensor *tensor)
{
    for (int i = 0; i < tensor->num_slices; i++) {
        struct tv_safetensors *file = NULL;
        const struct tv_safetensor *stored = NULL;
        if (c->files[tensor->slices[i].shard] != NULL &&
            find_slice(c, tensor, &tensor->slices[i], &file, &stored) == TV_OK)
            tv_safetensors_forget(file, stored);
    }
}
