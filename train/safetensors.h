/* train/safetensors.h -- the safetensors file format: named tensors behind a JSON header.
 *
 *   8 bytes   N, length of the header, little-endian
 *   N bytes   {"__metadata__": {...}, "name": {"dtype", "shape", "data_offsets": [begin, end]}...}
 *   the rest  data; offsets count from its start, tensors cover it without holes or overlap
 *
 * A reader checks the whole header against the file before it hands out anything, so what it
 * describes can be read. Source: the format's page in huggingface/safetensors. */
#ifndef TV_TRAIN_SAFETENSORS_H
#define TV_TRAIN_SAFETENSORS_H
#include "base/dtype.h"
#include "base/status.h"
#include "train/digest.h"
#include <stdint.h>

TV_BEGIN_C
enum { TV_SAFETENSORS_MAX_DIMS = 8 };

struct tv_safetensor {
    const char *name;  /* UTF-8, borrowed from the file */
    const char *dtype; /* "F32", "BF16", ... as the format spells it; static */
    int num_dims;      /* 0 for one number */
    int64_t shape[TV_SAFETENSORS_MAX_DIMS];
    int64_t offset, bytes; /* place in the data part */
};

struct tv_safetensors; /* opaque: a mapped file, read-only */
/* Errors: TV_BAD_FILE with the path and what is wrong, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_safetensors_open(const char *path, struct tv_safetensors **file_out);
void tv_safetensors_close(struct tv_safetensors *file); /* NULL is a no-op */

const char *tv_safetensors_path(const struct tv_safetensors *file);
int tv_safetensors_count(const struct tv_safetensors *file);
/* In the order of their data; valid until the file is closed. */
const struct tv_safetensor *tv_safetensors_at(const struct tv_safetensors *file, int index);
/* NULL when there is none of that name. */
const struct tv_safetensor *tv_safetensors_find(const struct tv_safetensors *file,
                                                const char *name);

/* Of an element of this dtype; 0 when the format has none of that name. */
int tv_safetensors_dtype_bytes(const char *dtype);
/* As the format spells it. */
const char *tv_safetensors_dtype_name(tv_dtype_t dtype);

/* A rectangle of a tensor seen as [shape[0], product of the others]; a vector is [n, 1]. */
struct tv_safetensors_rect {
    int64_t first_row, num_rows, first_col, num_cols;
};
/* out [num_rows, ld_out] as fp32; F32, BF16 and F16 are read.
 * Errors: TV_BAD_FILE for another dtype, TV_INTERNAL when the rectangle leaves the tensor. */
TV_MUST_CHECK tv_status_t tv_safetensors_read(const struct tv_safetensors *file,
                                              const struct tv_safetensor *tensor,
                                              const struct tv_safetensors_rect *rect, float *out,
                                              int64_t ld_out);

/* The tensor was read and is not needed soon: its pages of the map may go. */
void tv_safetensors_forget(const struct tv_safetensors *file, const struct tv_safetensor *tensor);

/* What a writer is told of each tensor. */
struct tv_safetensors_entry {
    const char *name;  /* borrowed until tv_safetensors_create returns */
    const char *dtype; /* as the format spells it; NULL: F32. Wider elements go first, so that all
                        * are aligned */
    int num_dims;
    int64_t shape[TV_SAFETENSORS_MAX_DIMS];
};
/* Opaque: a file under a temporary name beside `path`, which takes its place when it is complete.
 * The data part starts at a multiple of 8. */
struct tv_safetensors_writer;
/* Errors: TV_INVALID (a name twice, a bad shape or type), TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_safetensors_create(const char *path, int num_entries,
                                                const struct tv_safetensors_entry *entries,
                                                struct tv_safetensors_writer **writer_out);
/* The next `count` numbers, tensor after tensor in the declared order, in pieces of any length.
 * Errors: TV_IO (a full disk), TV_INTERNAL (more than was declared). */
TV_MUST_CHECK tv_status_t tv_safetensors_write(struct tv_safetensors_writer *writer,
                                               const float *data, int64_t count);
/* The same for any dtypes, in bytes. */
TV_MUST_CHECK tv_status_t tv_safetensors_write_bytes(struct tv_safetensors_writer *writer,
                                                     const void *data, int64_t bytes);
/* Of what has been written so far: of the whole file before tv_safetensors_finish. */
struct tv_file_digest tv_safetensors_digest(const struct tv_safetensors_writer *writer);
/* Sync, rename, free; *writer is NULL afterwards also on failure, which leaves `path` as it was.
 * Errors: TV_IO, TV_INTERNAL (less than was declared). */
TV_MUST_CHECK tv_status_t tv_safetensors_finish(struct tv_safetensors_writer **writer);
/* Remove the temporary file; *writer may be NULL. */
void tv_safetensors_abandon(struct tv_safetensors_writer **writer);
TV_END_C
#endif
