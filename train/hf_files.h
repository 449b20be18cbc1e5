/* train/hf_files.h -- the safetensors files that one path means: a file, the shards of an index, or
 * what a folder has of the two.
 *
 * An index (model.safetensors.index.json) maps the name of each tensor to the name of a file in its
 * own folder: {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors", ...}}. */
#ifndef TV_TRAIN_HF_FILES_H
#define TV_TRAIN_HF_FILES_H
#include "train/safetensors.h"

TV_BEGIN_C
struct tv_hf_files; /* opaque: open, mapped */
/* path: a .safetensors file, an index (its name ends in .json), or a folder with model.safetensors,
 * else model.safetensors.index.json. Of an index every file is opened; each tensor must be in the
 * file that it says, and no tensor besides. A name that leads out of the folder is refused.
 * Errors: TV_BAD_FILE, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_hf_files_open(const char *path, struct tv_hf_files **files_out);
void tv_hf_files_close(struct tv_hf_files *files); /* NULL is a no-op */

const char *tv_hf_files_path(const struct tv_hf_files *files); /* of the file or the index */
int tv_hf_files_count(const struct tv_hf_files *files);
const struct tv_safetensors *tv_hf_files_at(const struct tv_hf_files *files, int index);
int64_t tv_hf_files_num_tensors(const struct tv_hf_files *files);
TV_END_C
#endif
