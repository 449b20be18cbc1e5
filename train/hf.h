/* train/hf.h -- Hugging Face model folders: config.json and model.safetensors (whole or sharded).
 *
 * Nothing that changes the result is dropped: a configuration key that asks for what the models
 * here do not have is refused, as is a file with a missing, an unknown or a differently shaped
 * tensor. */
#ifndef TV_TRAIN_HF_H
#define TV_TRAIN_HF_H
#include "base/param.h"
#include "model/config.h"

TV_BEGIN_C
/* path: a config.json or the folder that has it. Missing keys take the values that transformers
 * gives them; keys that change nothing here are ignored, unknown ones are named in a warning.
 * Errors: TV_BAD_FILE (not readable, not JSON, a wrong type), TV_INVALID (a value that cannot be
 * trained), with file, key and value. */
TV_MUST_CHECK tv_status_t tv_hf_config_read(const char *path, struct tv_model_config *config_out);
/* Writes `path` under a temporary name and renames it. Errors: TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_hf_config_write(const char *path,
                                             const struct tv_model_config *config);

struct tv_hf; /* opaque: the weights of a table, in one or several mapped files */
/* path: a .safetensors file, a .safetensors.index.json, or a folder with one of them. config and
 * table say what must be in it; table is borrowed. GPT-2 names may lack `transformer.`; buffers
 * (attn.bias, attn.masked_bias, rotary_emb.inv_freq) are passed over; a lm_head.weight beside a
 * tied embedding must be equal to it. Errors: TV_BAD_FILE, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_hf_open(const char *path, const struct tv_model_config *config,
                                     const struct tv_param_table *table, struct tv_hf **hf_out);
void tv_hf_close(struct tv_hf *hf); /* NULL is a no-op */
/* The piece of tensor rank t of T, local_out [tv_param_local_count]; padding rows are zero. `param`
 * is a row of a table of the same model. Errors: TV_BAD_FILE (a dtype that is not read). */
TV_MUST_CHECK tv_status_t tv_hf_read_piece(const struct tv_hf *hf, const struct tv_param *param,
                                           int T, int t, float *local_out);

/* Make the folder and those above it where missing, and see that files can be made in it.
 * Errors: TV_INVALID with the path and the reason. */
TV_MUST_CHECK tv_status_t tv_hf_folder_prepare(const char *folder);

struct tv_hf_export; /* opaque: a folder being written */
/* Then one tv_hf_export_tensor per row of the table, in its order, then finish. Until then nothing
 * in the folder is replaced. table is borrowed. Errors: TV_INVALID, TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_hf_export_begin(const char *folder,
                                             const struct tv_model_config *config,
                                             const struct tv_param_table *table,
                                             struct tv_hf_export **file_out);
/* global [tv_param_count of the next row]. Errors: TV_IO, TV_INTERNAL (no row is left). */
TV_MUST_CHECK tv_status_t tv_hf_export_tensor(struct tv_hf_export *file, const float *global);
/* Both free the export and set *file to NULL, also on failure; NULL is a no-op for abandon. */
TV_MUST_CHECK tv_status_t tv_hf_export_finish(struct tv_hf_export **file);
void tv_hf_export_abandon(struct tv_hf_export **file);
TV_END_C
#endif
