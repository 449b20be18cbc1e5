/* train/saved_model.h -- a model on disk, whatever wrote it: its configuration, its table, and its
 * weights, read in rows so that none has to be in memory whole.
 *
 * What is known: Hugging Face folders and files. */
#ifndef TV_TRAIN_SAVED_MODEL_H
#define TV_TRAIN_SAVED_MODEL_H
#include "train/hf.h"

TV_BEGIN_C
struct tv_saved_model {
    const char *kind; /* "Hugging Face model"; static */
    struct tv_model_config config;
    struct tv_param_table table; /* owned */
    tv_hf_dtype_t dtype;         /* in which the weights are stored; fp32 where they differ */
    void *state;                 /* of the kind */
};
/* path: a folder, a safetensors file or an index. config_path: NULL, or a config.json in place of
 * the one beside the weights. A configuration with more layers than the files have tensors for is
 * refused before a table is made of it.
 * Errors: TV_BAD_FILE, TV_INVALID (a model that is not ours), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_saved_model_open(const char *path, const char *config_path,
                                              struct tv_saved_model *model_out);
void tv_saved_model_close(struct tv_saved_model *model); /* zeroed: a no-op */

/* Rows [first, first + num) of the whole of `param`, a row of the table, as fp32:
 * out [num, shape[1]]. */
TV_MUST_CHECK tv_status_t tv_saved_model_read(const struct tv_saved_model *model,
                                              const struct tv_param *param, int64_t first,
                                              int64_t num, float *out);
/* `param` was read and is not needed soon. */
void tv_saved_model_forget(const struct tv_saved_model *model, const struct tv_param *param);

/* What is done with a weight's numbers: rows [first, first + num) of `param`, numbers
 * [num, shape[1]], valid during the call. */
struct tv_saved_model_visitor {
    void *context;
    tv_status_t (*visit)(void *context, const struct tv_param *param, int64_t first, int64_t num,
                         const float *numbers);
};
/* All weights in the order of the table, each from its first row to its last, some MiB at a time:
 * the memory does not grow with the model. */
TV_MUST_CHECK tv_status_t tv_saved_model_stream(const struct tv_saved_model *model,
                                                const struct tv_saved_model_visitor *visitor);
TV_END_C
#endif
