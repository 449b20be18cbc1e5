/* train/files.h -- what the readers and writers of files share: folders, maps, files that appear
 * whole or not at all. */
#ifndef TV_TRAIN_FILES_H
#define TV_TRAIN_FILES_H
#include "base/status.h"
#include "train/digest.h"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

TV_BEGIN_C
struct json_t; /* jansson.h */

/* The folder and those above it, where missing. Errors: TV_INVALID with the path and the reason. */
TV_MUST_CHECK tv_status_t tv_folder_make(const char *folder);
/* The folder that `path` is to be in. */
TV_MUST_CHECK tv_status_t tv_folder_make_parent(const char *path);

/* A new name in it is safe on disk only when the folder is. Returns 0, or -1 with errno. */
int tv_folder_sync(const char *folder);

/* A plain file, read-only in memory. */
struct tv_file_map {
    const unsigned char *data; /* NULL when the file is empty */
    int64_t bytes;
};
/* Errors: TV_BAD_FILE (not there, not readable, not a plain file). */
TV_MUST_CHECK tv_status_t tv_file_map(const char *path, struct tv_file_map *map_out);
void tv_file_unmap(struct tv_file_map *map);
/* Bytes [first, first + bytes) were read and need not stay in memory; read again, they come from the
 * file. So a file is read from end to end in little memory. */
void tv_file_map_forget(const struct tv_file_map *map, int64_t first, int64_t bytes);

/* A JSON object from a file of at most max_bytes. The caller owns the reference.
 * Errors: TV_BAD_FILE with the line. */
TV_MUST_CHECK tv_status_t tv_file_read_json(const char *path, int64_t max_bytes,
                                            struct json_t **json_out);

/* A file or folder that a flag names. */
struct tv_flag_file {
    const char *flag, *path; /* flag without dashes; path NULL: not given */
    int is_written;
};
/* Is nothing that is written also written or read by another flag? Paths are compared as they lead there; what is no
 * plain file or folder, as /dev/null, is anybody's. Errors: TV_INVALID with both flags and the path. */
TV_MUST_CHECK tv_status_t tv_files_check_apart(int num, const struct tv_flag_file *files);

/* A text file that a flag names, for writing; its folder is made. flag: without dashes.
 * Errors: TV_INVALID with flag, path and reason. */
TV_MUST_CHECK tv_status_t tv_text_file_open(const char *flag, const char *path, FILE **file_out);
/* Returns `status`; TV_IO with flag, path and reason when the file could not be written. */
TV_MUST_CHECK tv_status_t tv_text_file_close(const char *flag, const char *path, FILE *file,
                                             tv_status_t status);

/* A file that is written under a temporary name beside `path`. Plain struct, zeroed or closed: no
 * file. */
struct tv_new_file {
    int fd;
    char *path, *temporary; /* owned */
};
/* Errors: TV_INVALID (what is there is no plain file), TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_new_file_open(const char *path, struct tv_new_file *file_out);
TV_MUST_CHECK tv_status_t tv_new_file_write(struct tv_new_file *file, const void *data,
                                            size_t bytes);
/* Sync, rename to `path`, sync the folder; closes, and removes the temporary file on failure. */
TV_MUST_CHECK tv_status_t tv_new_file_finish(struct tv_new_file *file);
void tv_new_file_abandon(struct tv_new_file *file);
TV_END_C
#endif
