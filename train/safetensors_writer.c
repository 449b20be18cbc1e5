/* train/safetensors_writer.c -- writes a safetensors file in one pass, all sizes known. */
#include "train/files.h"
#include "train/narrow.h"
#include "train/safetensors.h"
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1 << 14 }; /* numbers that are narrowed at once */

struct format {
    const char *name;
    int64_t bytes;
    uint16_t (*narrow)(float value); /* NULL: as it is; every target is little-endian */
    float (*widen)(uint16_t bits);
};
static const struct format formats[] = {{"F32", 4, NULL, NULL},
                                        {"BF16", 2, tv_bf16_of_f32, tv_f32_of_bf16},
                                        {"F16", 2, tv_f16_of_f32, tv_f32_of_f16}};

/* Numbers up to `end`, counted in the file, are in this format. */
struct piece {
    const struct format *format;
    int64_t end;
};

struct tv_safetensors_writer {
    struct tv_new_file file;
    int num_pieces, next; /* pieces before `next` are complete */
    struct piece *pieces; /* [num_pieces], one per tensor */
    int64_t written;      /* numbers */
    uint16_t block[BLOCK];
};

static const struct format *find_format(const char *name)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (name == NULL || strcmp(formats[i].name, name) == 0)
            return &formats[i];
    }
    return NULL;
}

static int64_t declared(const struct tv_safetensors_writer *writer)
{
    return writer->num_pieces > 0 ? writer->pieces[writer->num_pieces - 1].end : 0;
}

/* Adds one tensor to the header; *end is where its data starts, then where it ends. */
static tv_status_t declare(struct tv_safetensors_writer *writer, const char *path,
                           const struct tv_safetensors_entry *entry, json_t *header, int64_t *end)
{
    const struct format *format = find_format(entry->dtype);
    int64_t bytes = format != NULL ? format->bytes : 0, to;
    json_t *shape = json_array();
    int is_valid = format != NULL && entry->num_dims >= 0 &&
                   entry->num_dims <= TV_SAFETENSORS_MAX_DIMS &&
                   json_object_get(header, entry->name) == NULL;
    for (int i = 0; is_valid && i < entry->num_dims; i++) {
        is_valid = entry->shape[i] >= 0 && !__builtin_mul_overflow(bytes, entry->shape[i], &bytes);
        json_array_append_new(shape, json_integer(entry->shape[i]));
    }
    if (!is_valid || __builtin_add_overflow(*end, bytes, &to)) {
        json_decref(shape);
        return TV_ERR(TV_INVALID, "%s: tensor '%s' is there twice or has a bad shape or type", path,
                      entry->name);
    }
    json_t *value = json_pack("{s:s, s:o, s:[I, I]}", "dtype", format->name, "shape", shape,
                              "data_offsets", (json_int_t)*end, (json_int_t)to);
    if (json_object_set_new(header, entry->name, value) != 0)
        return TV_ERR(TV_INVALID, "%s: tensor '%s' cannot be declared: not UTF-8, or no memory",
                      path, entry->name);
    const struct piece piece = {format, declared(writer) + bytes / format->bytes};
    writer->pieces[writer->num_pieces++] = piece;
    *end = to;
    return TV_OK;
}

/* Length, text, and spaces up to a multiple of 8. */
static tv_status_t write_header(struct tv_new_file *file, const json_t *header)
{
    char *text = json_dumps(header, JSON_COMPACT);
    if (text == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: its header", file->path);
    const size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    unsigned char length_bytes[8];
    for (int i = 0; i < 8; i++)
        length_bytes[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    tv_status_t status = tv_new_file_write(file, length_bytes, sizeof(length_bytes));
    if (status == TV_OK)
        status = tv_new_file_write(file, text, length);
    if (status == TV_OK)
        status = tv_new_file_write(file, "       ", padded - length);
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
    writer->pieces = calloc((size_t)num_entries + 1, sizeof(*writer->pieces));
    if (writer->pieces == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %d tensors", path, num_entries);
    for (int i = 0; i < num_entries; i++)
        TV_TRY(declare(writer, path, &entries[i], header, &end));
    TV_TRY(tv_new_file_open(path, &writer->file));
    return write_header(&writer->file, header);
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

/* At most BLOCK numbers. */
static tv_status_t write_narrow(struct tv_safetensors_writer *writer, const struct format *format,
                                const float *data, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        writer->block[i] = format->narrow(data[i]);
        if (isinf(format->widen(writer->block[i])) && isfinite(data[i]))
            return TV_ERR(TV_INVALID, "%s: %.9g is beyond the largest %s number", writer->file.path,
                          (double)data[i], format->name);
    }
    return tv_new_file_write(&writer->file, writer->block, (size_t)count * sizeof(uint16_t));
}

/* The start of data[count] that goes into one piece. */
static tv_status_t write_some(struct tv_safetensors_writer *writer, const float *data,
                              int64_t count, int64_t *num_out)
{
    while (writer->pieces[writer->next].end == writer->written)
        writer->next++;
    const struct piece *piece = &writer->pieces[writer->next];
    const int64_t left = piece->end - writer->written;
    int64_t num = count < left ? count : left;
    if (piece->format->narrow != NULL) {
        num = num < BLOCK ? num : BLOCK;
        TV_TRY(write_narrow(writer, piece->format, data, num));
    } else {
        TV_TRY(tv_new_file_write(&writer->file, data, (size_t)num * sizeof(float)));
    }
    writer->written += num;
    *num_out = num;
    return TV_OK;
}

tv_status_t tv_safetensors_write(struct tv_safetensors_writer *writer, const float *data,
                                 int64_t count)
{
    const int64_t left = declared(writer) - writer->written;
    if (count < 0 || count > left)
        return TV_ERR(TV_INTERNAL, "%s: %" PRId64 " numbers where %" PRId64 " are left to write",
                      writer->file.path, count, left);
    for (int64_t done = 0, num = 0; done < count; done += num)
        TV_TRY(write_some(writer, data + done, count - done, &num));
    return TV_OK;
}

tv_status_t tv_safetensors_finish(struct tv_safetensors_writer **writer)
{
    tv_status_t status = TV_OK;
    const int64_t left = declared(*writer) - (*writer)->written;
    if (left != 0)
        status = TV_ERR(TV_INTERNAL, "%s: %" PRId64 " numbers were declared and not written",
                        (*writer)->file.path, left);
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
    free((*writer)->pieces);
    free(*writer);
    *writer = NULL;
}
