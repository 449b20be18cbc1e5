/* train/safetensors_writer.c -- writes a safetensors file in one pass, all sizes known. */
#include "train/files.h"
#include "train/safetensors.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct tv_safetensors_writer {
    struct tv_new_file file;
    int64_t bytes_left; /* declared and not yet written */
    int64_t bytes;      /* written */
    XXH3_state_t *hash; /* of them */
};

static tv_status_t put(struct tv_safetensors_writer *writer, const void *data, size_t bytes)
{
    TV_TRY(tv_new_file_write(&writer->file, data, bytes));
    XXH3_64bits_update(writer->hash, data, bytes);
    writer->bytes += (int64_t)bytes;
    return TV_OK;
}

/* Adds one tensor to the header; *end is where its data starts, then where it ends. */
static tv_status_t declare(const char *path, const struct tv_safetensors_entry *entry,
                           json_t *header, int64_t *end)
{
    const char *dtype = entry->dtype == NULL ? "F32" : entry->dtype;
    int64_t bytes = tv_safetensors_dtype_bytes(dtype), to;
    json_t *shape = json_array();
    int is_valid = bytes > 0 && *end % bytes == 0 && entry->num_dims >= 0 &&
                   entry->num_dims <= TV_SAFETENSORS_MAX_DIMS &&
                   json_object_get(header, entry->name) == NULL;
    for (int i = 0; is_valid && i < entry->num_dims; i++) {
        is_valid = entry->shape[i] >= 0 && !__builtin_mul_overflow(bytes, entry->shape[i], &bytes);
        json_array_append_new(shape, json_integer(entry->shape[i]));
    }
    if (!is_valid || __builtin_add_overflow(*end, bytes, &to)) {
        json_decref(shape);
        return TV_ERR(TV_INVALID, "%s: tensor '%s' is there twice or has a bad shape or dtype",
                      path, entry->name);
    }
    json_t *value = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape,
                              "data_offsets", (json_int_t)*end, (json_int_t)to);
    if (json_object_set_new(header, entry->name, value) != 0)
        return TV_ERR(TV_INVALID, "%s: tensor '%s' cannot be declared: not UTF-8, or no memory",
                      path, entry->name);
    *end = to;
    return TV_OK;
}

/* Length, text, and spaces up to a multiple of 8. */
static tv_status_t write_header(struct tv_safetensors_writer *writer, const json_t *header)
{
    char *text = json_dumps(header, JSON_COMPACT);
    if (text == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: its header", writer->file.path);
    const size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    unsigned char length_bytes[8];
    for (int i = 0; i < 8; i++)
        length_bytes[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    tv_status_t status = put(writer, length_bytes, sizeof(length_bytes));
    if (status == TV_OK)
        status = put(writer, text, length);
    if (status == TV_OK)
        status = put(writer, "       ", padded - length);
    free(text);
    return status;
}

static tv_status_t begin_file(const char *path, int num_entries,
                              const struct tv_safetensors_entry *entries, json_t *header,
                              struct tv_safetensors_writer *writer)
{
    int64_t end = 0;
    /* transformers refuses files without this entry. */
    if (json_object_set_new(header, "__metadata__", json_pack("{s:s}", "format", "pt")) != 0)
        return TV_ERR(TV_NO_MEMORY, "%s: its header", path);
    for (int i = 0; i < num_entries; i++)
        TV_TRY(declare(path, &entries[i], header, &end));
    writer->bytes_left = end;
    writer->hash = XXH3_createState();
    if (writer->hash == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: a hash", path);
    XXH3_64bits_reset(writer->hash);
    TV_TRY(tv_new_file_open(path, &writer->file));
    return write_header(writer, header);
}

tv_status_t tv_safetensors_create(const char *path, int num_entries,
                                  const struct tv_safetensors_entry *entries,
                                  struct tv_safetensors_writer **writer_out)
{
    struct tv_safetensors_writer *writer = calloc(1, sizeof(*writer));
    json_t *header = json_object();
    tv_status_t status;
    if (writer == NULL || header == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%s: a writer", path);
    else
        status = begin_file(path, num_entries, entries, header, writer);
    json_decref(header);
    if (status == TV_OK)
        *writer_out = writer;
    else
        tv_safetensors_abandon(&writer);
    return status;
}

tv_status_t tv_safetensors_write_bytes(struct tv_safetensors_writer *writer, const void *data,
                                       int64_t bytes)
{
    if (bytes < 0 || bytes > writer->bytes_left)
        return TV_ERR(TV_INTERNAL, "%s: %" PRId64 " bytes where %" PRId64 " are left to write",
                      writer->file.path, bytes, writer->bytes_left);
    writer->bytes_left -= bytes;
    return put(writer, data, (size_t)bytes);
}

tv_status_t tv_safetensors_write(struct tv_safetensors_writer *writer, const float *data,
                                 int64_t count)
{
    return tv_safetensors_write_bytes(writer, data, count * (int64_t)sizeof(float));
}

struct tv_file_digest tv_safetensors_digest(const struct tv_safetensors_writer *writer)
{
    return (struct tv_file_digest){writer->bytes, XXH3_64bits_digest(writer->hash)};
}

tv_status_t tv_safetensors_finish(struct tv_safetensors_writer **writer)
{
    tv_status_t status = TV_OK;
    if ((*writer)->bytes_left != 0)
        status = TV_ERR(TV_INTERNAL, "%s: %" PRId64 " bytes were declared and not written",
                        (*writer)->file.path, (*writer)->bytes_left);
    else
        status = tv_new_file_finish(&(*writer)->file);
    tv_safetensors_abandon(writer);
    return status;
}

void tv_safetensors_abandon(struct tv_safetensors_writer **writer)
{
    if (*writer == NULL)
        return;
    tv_new_file_abandon(&(*writer)->file);
    XXH3_freeState((*writer)->hash);
    free(*writer);
    *writer = NULL;
}
