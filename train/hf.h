/* train/hf.h -- Hugging Face model folders: config.json and model.safetensors (whole or sharded).
 *
 * Nothing that changes the result is dropped: a configuration key that asks for what the models
 * here do not have is refused, as is a file with a missing, an unknown or a differently shaped
 * tensor. */
#ifndef TV_TRAIN_HF_H
#define TV_TRAIN_HF_H
#include "base/param.h"
#include "model/config.h"
#include "train/hf_files.h"

TV_BEGIN_C
/* path: a config.json or the folder that has it. Missing keys take the values that transformers
 * gives them; keys that change nothing here are ignored, unknown ones are named in a warning.
 * Errors: TV_BAD_FILE (not readable, not JSON, a wrong type), TV_INVALID (a value that cannot be
 * trained), with file, key and value. */
TV_MUST_CHECK tv_status_t tv_hf_config_read(const char *path, struct tv_model_config *config_out);
/* How numbers are stored: "fp32", "bf16", "fp16" in flags. */
typedef enum { TV_HF_FP32, TV_HF_BF16, TV_HF_FP16, TV_HF_NUM_DTYPES } tv_hf_dtype_t;
/* Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_hf_dtype_parse(const char *word, tv_hf_dtype_t *dtype_out);
/* As safetensors spells it; another name, or NULL, is fp32. */
tv_hf_dtype_t tv_hf_dtype_of(const char *safetensors_name);
const char *tv_hf_dtype_name(tv_hf_dtype_t dtype); /* "fp32", "bf16", "fp16" */

/* Writes `path` under a temporary name and renames it. Errors: TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_hf_config_write(const char *path, const struct tv_model_config *config,
                                             tv_hf_dtype_t dtype);

struct tv_hf; /* opaque: the weights of a table, in one or several mapped files */
/* path: as of tv_hf_files_open. config and table say what must be in it; its params are borrowed. GPT-2
 * names may lack `transformer.`; buffers (attn.bias, attn.masked_bias, rotary_emb.inv_freq) are
 * passed over; a lm_head.weight beside a tied embedding must be equal to it.
 * Errors: TV_BAD_FILE, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_hf_open(const char *path, const struct tv_model_config *config,
                                     const struct tv_param_table *table, struct tv_hf **hf_out);
/* The same of open files, which become the result's, or are closed on failure. */
TV_MUST_CHECK tv_status_t tv_hf_place(struct tv_hf_files *files,
                                      const struct tv_model_config *config,
                                      const struct tv_param_table *table, struct tv_hf **hf_out);
void tv_hf_close(struct tv_hf *hf); /* NULL is a no-op */
/* The piece of tensor rank t of T, local_out [tv_param_local_count]; padding rows are zero. `param`
 * is a row of a table of the same model. Errors: TV_BAD_FILE (a dtype that is not read). */
TV_MUST_CHECK tv_status_t tv_hf_read_piece(const struct tv_hf *hf, const struct tv_param *param,
                                           int T, int t, float *local_out);
/* Rows [first, first + num) of the whole of `param`, out [num, shape[1]]. */
TV_MUST_CHECK tv_status_t tv_hf_read_rows(const struct tv_hf *hf, const struct tv_param *param,
                                          int64_t first, int64_t num, float *out);
/* `param` is not needed soon: its pages of the map may go. */
void tv_hf_forget(const struct tv_hf *hf, const struct tv_param *param);
/* "F32", "BF16" or "F16" when all weights are of it, else NULL. */
const char *tv_hf_dtype(const struct tv_hf *hf);

/* Make the folder and those above it where missing, and see that files can be made in it.
 * Errors: TV_INVALID with the path and the reason. */
TV_MUST_CHECK tv_status_t tv_hf_folder_prepare(const char *folder);

/* How a folder is written. Zeroed: fp32 in one file. */
struct tv_hf_export_form {
    tv_hf_dtype_t dtype;
    int64_t
        max_shard_bytes; /* of tensor data in a file, unless one tensor is larger; 0: no limit */
};
struct tv_hf_export; /* opaque: a folder being written */
/* Then the numbers of all rows of the table in its order, then finish. One file, model.safetensors,
 * or where it would be larger than max_shard_bytes model-00001-of-0000N.safetensors ... and, last,
 * their index: until then what a reader finds in the folder is not replaced. The bytes are a
 * function of configuration, form and numbers alone. table is borrowed.
 * Errors: TV_INVALID (also: shards beside a model.safetensors, which readers would prefer, or beside
 * an index of others), TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_hf_export_begin(const char *folder,
                                             const struct tv_model_config *config,
                                             const struct tv_param_table *table,
                                             struct tv_hf_export_form form,
                                             struct tv_hf_export **file_out);
/* The next `count` numbers, which do not go beyond their tensor.
 * Errors: TV_INVALID (beyond the dtype), TV_IO, TV_INTERNAL (more than the table has). */
TV_MUST_CHECK tv_status_t tv_hf_export_numbers(struct tv_hf_export *file, const float *numbers,
                                               int64_t count);
/* Both free the export and set *file to NULL, also on failure; NULL is a no-op for abandon. */
TV_MUST_CHECK tv_status_t tv_hf_export_finish(struct tv_hf_export **file);
void tv_hf_export_abandon(struct tv_hf_export **file);
TV_END_C
#endif
