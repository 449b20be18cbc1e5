/* train/checkpoint_internal.h -- the files of a checkpoint, and the parts of saving and loading. */
#ifndef TV_TRAIN_CHECKPOINT_INTERNAL_H
#define TV_TRAIN_CHECKPOINT_INTERNAL_H
#include "train/checkpoint.h"
#include "train/files.h"
#include "train/safetensors.h"
#include "train/state.h"
#include "train/work.h"
#include <limits.h>

TV_BEGIN_C
struct json_t; /* jansson.h */

#define TV_INDEX_NAME "index.json"
#define TV_STATE_NAME "state.json"
enum { TV_CHECKPOINT_VERSION = 1, TV_SHARD_NAME_BYTES = 40 };

/* ---- checkpoint_index.c: index.json ---- */

struct tv_index_shard {
    const char *name; /* of a file in the folder; borrowed from the JSON */
    struct tv_file_digest digest;
};
struct tv_index_slice { /* rows x columns of a tensor, as a tensor of a shard */
    int shard;
    int64_t row, col, num_rows, num_cols;
};
struct tv_index_tensor {
    const char *kind, *name, *dtype; /* borrowed */
    int num_dims;
    int64_t shape[2];
    int num_slices;
    struct tv_index_slice *slices; /* by first row, then column; together all of it, once */
};
struct tv_index {
    struct json_t *json;
    struct tv_file_digest state; /* of state.json */
    int64_t vocab_size;
    int num_shards, num_tensors;
    struct tv_index_shard *shards;
    struct tv_index_tensor *tensors; /* sorted by kind and name */
};
/* text [bytes]; path is for messages. Everything that can be known without the shards is checked: names that stay in
 * the folder, sizes, that the slices of a tensor cover it without overlap, and the text's own hash.
 * Errors: TV_BAD_FILE naming path and entry, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_index_parse(const char *path, const char *text, size_t bytes,
                                         struct tv_index *index_out);
void tv_index_free(struct tv_index *index);
/* NULL when there is none. */
const struct tv_index_tensor *tv_index_find(const struct tv_index *index, const char *kind,
                                            const char *name);
/* The text for a run's checkpoint; digests [ranks] of its shards by mesh rank, bytes 0: that rank has none. The caller
 * frees *text_out. Errors: TV_NO_MEMORY, TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_index_make(const struct tv_run *run,
                                        const struct tv_file_digest *digests,
                                        const struct tv_file_digest *state, char **text_out);
/* "shard-00003.safetensors"; name_out [TV_SHARD_NAME_BYTES] */
void tv_shard_name(int mesh_rank, char *name_out);
/* "weight/wte.weight/16,0": a slice's name in its shard; first row and column. name_out [TV_SLICE_NAME_BYTES] */
enum { TV_KIND_BYTES = 24, TV_SLICE_NAME_BYTES = TV_PARAM_MAX_NAME + TV_KIND_BYTES + 48 };
void tv_slice_name(const char *kind, const char *tensor, int64_t row, int64_t col, char *name_out);

/* checkpoint_json.c: members of an object that must be there. path and what are for messages ("state.json: step").
 * Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_member_int(const char *path, const char *what,
                                        const struct json_t *object, const char *key, int64_t low,
                                        int64_t high, int64_t *value_out);
TV_MUST_CHECK tv_status_t tv_member_real(const char *path, const char *what,
                                         const struct json_t *object, const char *key,
                                         double *value_out);
TV_MUST_CHECK tv_status_t tv_member_text(const char *path, const char *what,
                                         const struct json_t *object, const char *key,
                                         const char **text_out);
TV_MUST_CHECK tv_status_t tv_member_object(const char *path, const struct json_t *object,
                                           const char *key, struct json_t **member_out);
/* {"bytes": n, "xxh3": "16 hexadecimal digits"} */
TV_MUST_CHECK tv_status_t tv_member_digest(const char *path, const char *what,
                                           const struct json_t *object,
                                           struct tv_file_digest *digest_out);
struct json_t *tv_digest_json(const struct tv_file_digest *digest);
struct tv_file_digest tv_digest_of(const void *data, size_t bytes);
/* A JSON object of format `trivet checkpoint` and a version that is read. The caller owns the reference. */
TV_MUST_CHECK tv_status_t tv_checkpoint_json(const char *path, const char *text, size_t bytes,
                                             struct json_t **json_out);
/* The two members by which it is known. */
struct json_t *tv_checkpoint_json_new(void);

/* ---- checkpoint_state.c: state.json ---- */

struct tv_saved_state {
    struct json_t *json;
    int64_t step, consumed, num_updates, bad_in_a_row;
    int64_t num_samples,
        seq_length;        /* of the data: an epoch is so many samples of so many tokens */
    const char *optimizer; /* borrowed */
    struct tv_model_config model;
};
/* As tv_index_parse. */
TV_MUST_CHECK tv_status_t tv_saved_state_parse(const char *path, const char *text, size_t bytes,
                                               struct tv_saved_state *state_out);
void tv_saved_state_free(struct tv_saved_state *state);
TV_MUST_CHECK tv_status_t tv_saved_state_make(const struct tv_trainer *trainer, int64_t step,
                                              char **text_out);

/* ---- checkpoint_folder.c: names, and what happens to whole folders; called by one rank ---- */

/* Steps of the folders in `folder` that have the name of a step, ascending; the caller frees them. A folder that is
 * not there has none. Errors: TV_BAD_FILE, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_folder_steps(const char *folder, int64_t **steps_out, int *num_out);
/* The temporary folder of a step, empty. Errors: TV_IO. */
TV_MUST_CHECK tv_status_t tv_folder_begin(const char *folder, int64_t step);
/* Give it its name, in place of an older one of that name, and sync `folder`. Errors: TV_IO. */
TV_MUST_CHECK tv_status_t tv_folder_commit(const char *folder, int64_t step);
/* Remove what saves that did not end have left; a step that was to be replaced gets its name back. */
void tv_folder_clean(const char *folder);
/* Remove the oldest steps until `keep` are left, of which `newest` is one. Warns where that fails. */
void tv_folder_prune(const char *folder, int64_t newest, int64_t keep);
/* A file in the temporary folder of a step. */
void tv_folder_temporary(const char *folder, int64_t step, const char *name,
                         char path_out[PATH_MAX]);
/* --save can be written, and what the run will save fits on the disk. Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_folder_prepare(const struct tv_run *run);

/* ---- checkpoint_find.c, checkpoint_load.c ---- */

struct tv_checkpoint {
    char path[PATH_MAX];
    struct tv_index index;
    struct tv_saved_state state;
    struct tv_safetensors **files; /* [num_shards], opened when first read */
};
/* The part of tv_checkpoint_find behind the flags: `folder` itself, or its newest step that is whole; NULL: there is
 * none. */
TV_MUST_CHECK tv_status_t tv_checkpoint_find_in(struct tv_comm *world, const char *folder,
                                                struct tv_checkpoint_trial trial,
                                                struct tv_checkpoint **checkpoint_out);
/* Of all its shards. */
int64_t tv_checkpoint_bytes(const struct tv_checkpoint *checkpoint);
/* A shard's file, kept open. Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_checkpoint_shard(struct tv_checkpoint *checkpoint, int shard,
                                              struct tv_safetensors **file_out);

/* checkpoint_rows.c. Rows [first, first + num) of a logical tensor, out [num, columns] as fp32. Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_checkpoint_read_rows(struct tv_checkpoint *checkpoint,
                                                  const struct tv_index_tensor *tensor,
                                                  int64_t first, int64_t num, float *out);
/* It was read and is not needed soon: its pages of the shards may go. */
void tv_checkpoint_forget(struct tv_checkpoint *checkpoint, const struct tv_index_tensor *tensor);

/* ---- called by the trainer ---- */

struct tv_saver; /* opaque: what it takes to save; checkpoint_save.c */
/* Errors: TV_NO_MEMORY, TV_INVALID. Not collective. */
TV_MUST_CHECK tv_status_t tv_saver_create(struct tv_trainer *trainer, struct tv_saver **saver_out);
void tv_saver_destroy(struct tv_saver *saver); /* NULL is a no-op */
/* Is the checkpoint one of this model and optimizer? The same verdict on every rank. Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_checkpoint_check(const struct tv_checkpoint *checkpoint,
                                              const struct tv_run *run);
/* Weights, moments and counters of the run's checkpoint, as its flags want them. Collective over the mesh.
 * Errors: TV_BAD_FILE, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_checkpoint_load(struct tv_trainer *trainer);
/* The step after which the run goes on; 0: a fresh start, or weights alone. */
int64_t tv_checkpoint_first_step(const struct tv_run *run);
/* Samples read up to there. */
int64_t tv_checkpoint_consumed(const struct tv_run *run);
TV_END_C
#endif
