/* train/saved_model.h -- a model on disk, whatever wrote it: its configuration, its table, and its
 * weights, read in rows so that none has to be in memory whole.
 *
 * What is known: Hugging Face folders and files, and checkpoints of trivet. */
#ifndef TV_TRAIN_SAVED_MODEL_H
#define TV_TRAIN_SAVED_MODEL_H
#include "train/hf.h"

TV_BEGIN_C
struct tv_saved_model {
    const struct tv_saved_kind *kind;
    struct tv_model_config config;
    struct tv_param_table table; /* owned */
    tv_hf_dtype_t dtype;         /* in which the weights are stored; fp32 where they differ */
    int64_t step;                /* of a checkpoint; -1 */
    void *state;                 /* of the kind */
};

/* A way to save a model: one row of the table in saved_model.c. */
struct tv_saved_kind {
    const char *name;
    int (*fits)(const char *path); /* is what lies there of this kind? */
    /* As tv_saved_model_open; fills config, table, dtype, step and state. */
    tv_status_t (*open)(const char *path, const char *config_path, struct tv_saved_model *model);
    void (*close)(void *state); /* NULL is a no-op */
    /* As tv_saved_model_read and tv_saved_model_forget. */
    tv_status_t (*read)(const struct tv_saved_model *model, const struct tv_param *param,
                        int64_t first, int64_t num, float *out);
    void (*forget)(const struct tv_saved_model *model, const struct tv_param *param);
};
extern const struct tv_saved_kind tv_saved_hf, tv_saved_checkpoint;

/* path: a Hugging Face folder, a safetensors file or an index; a checkpoint (DIR/step-00000100) or a
 * folder of them, whose newest whole one it is. Every byte of a checkpoint is held against its
 * hashes. config_path: NULL, or a config.json in place of the one beside the weights. A
 * configuration with more layers than there are tensors for is refused before a table is made of it.
 * Errors: TV_BAD_FILE, TV_INVALID (a model that is not ours), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_saved_model_open(const char *path, const char *config_path,
                                              struct tv_saved_model *model_out);
/* For kinds: could so many tensors be a model of that many layers? path: for the message.
 * Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_saved_model_check_claim(const char *path, int64_t num_tensors,
                                                     const struct tv_model_config *config);
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
