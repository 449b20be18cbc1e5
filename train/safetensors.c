/* train/safetensors.c -- reads the header of a safetensors file and proves it before it is used.
 *
 * Sorted by place, the tensors must follow each other from 0 to the end of the file: that leaves no
 * room for an offset outside, an overlap or a hole. */
#include "train/safetensors.h"
#include "base/dtype.h"
#include "train/file_faults.h"
#include "train/files.h"
#include "train/narrow.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* As in the reference reader. */
enum { MAX_HEADER_BYTES = 100000000, LENGTH_BYTES = 8 };

struct tv_safetensors {
    char *path;
    struct tv_file_map map;
    const unsigned char *data; /* the data part */
    int64_t data_bytes;
    json_t *header; /* owns the names */
    int num_tensors;
    struct tv_safetensor *tensors;        /* [num_tensors], by place */
    const struct tv_safetensor **by_name; /* [num_tensors], sorted */
};

struct dtype {
    const char *name;
    int bytes;
};
static const struct dtype dtypes[] = {{"F64", 8},     {"F32", 4},     {"F16", 2}, {"BF16", 2},
                                      {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I64", 8}, {"I32", 4},
                                      {"I16", 2},     {"I8", 1},      {"U64", 8}, {"U32", 4},
                                      {"U16", 2},     {"U8", 1},      {"BOOL", 1}};

static const struct dtype *find_dtype(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    }
    return NULL;
}

int tv_safetensors_dtype_bytes(const char *dtype)
{
    const struct dtype *found = find_dtype(dtype);
    return found == NULL ? 0 : found->bytes;
}

const char *tv_safetensors_dtype_name(tv_dtype_t dtype)
{
    static const char *const names[] = {[TV_F32] = "F32", [TV_F64] = "F64", [TV_BF16] = "BF16",
                                        [TV_I32] = "I32", [TV_I64] = "I64", [TV_U8] = "U8"};
    return names[dtype];
}

/* Fills shape; *bytes_out = element size times the product of the shape. */
static tv_status_t parse_shape(const struct tv_safetensors *file, struct tv_safetensor *tensor,
                               const json_t *shape, int64_t element_bytes, int64_t *bytes_out)
{
    const size_t num_dims = json_array_size(shape);
    if (!json_is_array(shape) || num_dims > TV_SAFETENSORS_MAX_DIMS)
        return TV_ERR(TV_BAD_FILE, "%s: %s: the shape is not a list of at most %d sizes",
                      file->path, tensor->name, TV_SAFETENSORS_MAX_DIMS);
    int64_t bytes = element_bytes;
    tensor->num_dims = (int)num_dims;
    for (size_t i = 0; i < num_dims; i++) {
        const json_t *dim = json_array_get(shape, i);
        const int64_t length = json_integer_value(dim);
        if (!json_is_integer(dim) || length < 0)
            return TV_ERR(TV_BAD_FILE, "%s: %s: dim %zu of the shape is not a size", file->path,
                          tensor->name, i);
        if (__builtin_mul_overflow(bytes, length, &bytes))
            return TV_ERR(TV_BAD_FILE, "%s: %s: the shape is too large for any file", file->path,
                          tensor->name);
        tensor->shape[i] = length;
    }
    *bytes_out = bytes;
    return TV_OK;
}

static tv_status_t parse_tensor(const struct tv_safetensors *file, const char *name,
                                const json_t *entry, struct tv_safetensor *tensor)
{
    const struct dtype *dtype = find_dtype(json_string_value(json_object_get(entry, "dtype")));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    int64_t bytes = 0;
    tensor->name = name;
    if (dtype == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s: the dtype is missing or not known", file->path, name);
    tensor->dtype = dtype->name;
    TV_TRY(parse_shape(file, tensor, json_object_get(entry, "shape"), dtype->bytes, &bytes));
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return TV_ERR(TV_BAD_FILE, "%s: %s: data_offsets is not [begin, end]", file->path, name);
    const int64_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || to > file->data_bytes)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %s: data_offsets [%" PRId64 ", %" PRId64
                      "] leave the file, which has %" PRId64 " bytes of data",
                      file->path, name, from, to, file->data_bytes);
    if (to - from != bytes)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %s: shape and dtype need %" PRId64 " bytes, data_offsets give %" PRId64,
                      file->path, name, bytes, to - from);
    tensor->offset = from;
    tensor->bytes = bytes;
    return TV_OK;
}

static int compare_place(const void *left, const void *right)
{
    const struct tv_safetensor *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes) /* empty tensors share a place with the one that follows */
        return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int compare_name(const void *left, const void *right)
{
    const struct tv_safetensor *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static tv_status_t check_places(const struct tv_safetensors *file)
{
    int64_t end = 0;
    for (int i = 0; i < file->num_tensors; i++) {
        const struct tv_safetensor *tensor = &file->tensors[i];
        if (tensor->offset != end)
            return TV_ERR(TV_BAD_FILE,
                          "%s: %s starts at byte %" PRId64 " of the data, %s byte %" PRId64,
                          file->path, tensor->name, tensor->offset,
                          tensor->offset < end ? "inside its predecessor, which ends at"
                                               : "after a hole from",
                          end);
        end += tensor->bytes;
    }
    if (end != file->data_bytes)
        return TV_ERR(TV_BAD_FILE,
                      "%s: the tensors end at byte %" PRId64 " of %" PRId64 " bytes of data",
                      file->path, end, file->data_bytes);
    return TV_OK;
}

static tv_status_t parse_tensors(struct tv_safetensors *file)
{
    const char *name;
    json_t *entry;
    const size_t num = json_object_size(file->header);
    file->tensors = calloc(num + 1, sizeof(*file->tensors));
    file->by_name = calloc(num + 1, sizeof(const struct tv_safetensor *));
    if (file->tensors == NULL || file->by_name == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu tensors", file->path, num);
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") != 0)
            TV_TRY(parse_tensor(file, name, entry, &file->tensors[file->num_tensors++]));
    }
    qsort(file->tensors, (size_t)file->num_tensors, sizeof(*file->tensors), compare_place);
    for (int i = 0; i < file->num_tensors; i++)
        file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, (size_t)file->num_tensors, sizeof(const struct tv_safetensor *),
          compare_name);
    return check_places(file);
}

static tv_status_t parse_file(void *context)
{
    struct tv_safetensors *file = context;
    json_error_t error;
    uint64_t length = 0;
    TV_TRY(tv_file_map(file->path, &file->map));
    if (file->map.bytes < LENGTH_BYTES)
        return TV_ERR(TV_BAD_FILE, "%s: %" PRId64 " bytes are too few for a safetensors file",
                      file->path, file->map.bytes);
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)file->map.data[i] << (8 * i);
    if (length > MAX_HEADER_BYTES || (int64_t)length > file->map.bytes - LENGTH_BYTES)
        return TV_ERR(TV_BAD_FILE,
                      "%s: a header of %" PRIu64 " bytes in a file of %" PRId64 " (at most %d): "
                      "cut short, or not a safetensors file",
                      file->path, length, file->map.bytes, MAX_HEADER_BYTES);
    file->data = file->map.data + LENGTH_BYTES + length;
    file->data_bytes = file->map.bytes - LENGTH_BYTES - (int64_t)length;
    file->header = json_loadb((const char *)file->map.data + LENGTH_BYTES, (size_t)length,
                              JSON_REJECT_DUPLICATES, &error);
    if (file->header == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: the header is not JSON: %s", file->path, error.text);
    if (!json_is_object(file->header))
        return TV_ERR(TV_BAD_FILE, "%s: the header is not a JSON object", file->path);
    return parse_tensors(file);
}

tv_status_t tv_safetensors_open(const char *path, struct tv_safetensors **file_out)
{
    tv_status_t status = TV_OK;
    struct tv_safetensors *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", path, sizeof(*file));
    file->path = strdup(path);
    if (file->path == NULL) {
        status = TV_ERR(TV_NO_MEMORY, "%s: its name", path);
        goto fail;
    }
    status = tv_file_guard(parse_file, file);
    if (status != TV_OK)
        goto fail;
    *file_out = file;
    return TV_OK;

fail:
    tv_safetensors_close(file);
    return status;
}

void tv_safetensors_close(struct tv_safetensors *file)
{
    if (file == NULL)
        return;
    json_decref(file->header);
    free(file->tensors);
    free(file->by_name);
    tv_file_unmap(&file->map);
    free(file->path);
    free(file);
}

const char *tv_safetensors_path(const struct tv_safetensors *file)
{
    return file->path;
}

int tv_safetensors_count(const struct tv_safetensors *file)
{
    return file->num_tensors;
}

const struct tv_safetensor *tv_safetensors_at(const struct tv_safetensors *file, int index)
{
    return &file->tensors[index];
}

const struct tv_safetensor *tv_safetensors_find(const struct tv_safetensors *file, const char *name)
{
    const struct tv_safetensor key = {.name = name}, *wanted = &key;
    const struct tv_safetensor **found = bsearch(&wanted, file->by_name, (size_t)file->num_tensors,
                                                 sizeof(*file->by_name), compare_name);
    return found == NULL ? NULL : *found;
}

typedef void (*read_row_fn)(const unsigned char *from, int64_t count, float *out);

static void read_row_f32(const unsigned char *from, int64_t count, float *out)
{
    memcpy(out, from, (size_t)count * sizeof(float)); /* little-endian, as is every target */
}

static void read_row_bf16(const unsigned char *from, int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = tv_bf16_to_f32((uint16_t)(from[2 * i] | from[2 * i + 1] << 8));
}

static void read_row_f16(const unsigned char *from, int64_t count, float *out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = tv_f32_of_f16((uint16_t)(from[2 * i] | from[2 * i + 1] << 8));
}

static read_row_fn reader_of(const char *dtype)
{
    if (strcmp(dtype, "F32") == 0)
        return read_row_f32;
    if (strcmp(dtype, "BF16") == 0)
        return read_row_bf16;
    return strcmp(dtype, "F16") == 0 ? read_row_f16 : NULL;
}

struct rows {
    read_row_fn read_row;
    const unsigned char *data; /* of the first */
    int64_t row_bytes, num, count;
    float *out; /* [num, count], ld_out from row to row */
    int64_t ld_out;
};

static tv_status_t read_rows(void *context)
{
    const struct rows *rows = context;
    for (int64_t r = 0; r < rows->num; r++)
        rows->read_row(rows->data + r * rows->row_bytes, rows->count, rows->out + r * rows->ld_out);
    return TV_OK;
}

tv_status_t tv_safetensors_read(const struct tv_safetensors *file,
                                const struct tv_safetensor *tensor,
                                const struct tv_safetensors_rect *rect, float *out, int64_t ld_out)
{
    const read_row_fn read_row = reader_of(tensor->dtype);
    const int64_t element_bytes = find_dtype(tensor->dtype)->bytes;
    const int64_t rows = tensor->num_dims > 0 ? tensor->shape[0] : 1;
    const int64_t cols = rows == 0 ? 0 : tensor->bytes / element_bytes / rows;
    if (read_row == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s is %s; F32, BF16 and F16 are read", file->path,
                      tensor->name, tensor->dtype);
    if (rect->num_rows == 0 || rect->num_cols == 0)
        return TV_OK;
    if (rect->first_row < 0 || rect->num_rows < 0 || rect->num_rows > rows - rect->first_row ||
        rect->first_col < 0 || rect->num_cols < 0 || rect->num_cols > cols - rect->first_col)
        return TV_ERR(TV_INTERNAL,
                      "%s: %s: rows [%" PRId64 ", +%" PRId64 "), columns [%" PRId64 ", +%" PRId64
                      ") of [%" PRId64 ", %" PRId64 "]",
                      file->path, tensor->name, rect->first_row, rect->num_rows, rect->first_col,
                      rect->num_cols, rows, cols);
    struct rows read = {.read_row = read_row,
                        .data = file->data + tensor->offset +
                                (rect->first_row * cols + rect->first_col) * element_bytes,
                        .row_bytes = cols * element_bytes,
                        .num = rect->num_rows,
                        .count = rect->num_cols,
                        .out = out,
                        .ld_out = ld_out};
    return tv_file_guard(read_rows, &read);
}

void tv_safetensors_forget(const struct tv_safetensors *file, const struct tv_safetensor *tensor)
{
    tv_file_map_forget(&file->map, file->data - file->map.data + tensor->offset, tensor->bytes);
}
