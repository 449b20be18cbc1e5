/* train/inspect_tensors.c -- the tensors of safetensors files, each read once, some MiB at a time. */
#include "train/hf_files.h"
#include "train/inspect_internal.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void tv_inspect_count(const float *block, int64_t count, struct tv_inspect_numbers *numbers)
{
    for (int64_t i = 0; i < count; i++) {
        const double x = (double)block[i];
        if (!isfinite(x)) {
            numbers->nonfinite++;
            continue;
        }
        numbers->finite++;
        numbers->square_sum += x * x;
        numbers->largest = fmax(numbers->largest, fabs(x));
    }
}

void tv_inspect_describe_numbers(const struct tv_inspect_numbers *numbers, json_t *entry)
{
    const double rms =
        numbers->finite > 0 ? sqrt(numbers->square_sum / (double)numbers->finite) : 0;
    json_object_set_new(entry, "rms", json_real(rms));
    json_object_set_new(entry, "largest", json_real(numbers->largest));
    json_object_set_new(entry, "nonfinite", json_integer(numbers->nonfinite));
}

/* block [TV_INSPECT_BLOCK] */
static tv_status_t read_numbers(const struct tv_safetensors *file,
                                const struct tv_safetensor *tensor, float *block,
                                struct tv_inspect_numbers *numbers)
{
    const int64_t count = tensor->bytes / tv_safetensors_dtype_bytes(tensor->dtype);
    const int64_t rows = tensor->num_dims > 0 ? tensor->shape[0] : 1;
    const int64_t cols = rows > 0 ? count / rows : 0;
    const int64_t num_cols = cols < TV_INSPECT_BLOCK ? cols : TV_INSPECT_BLOCK;
    const int64_t num_rows = num_cols > 0 ? TV_INSPECT_BLOCK / num_cols : 1;
    for (int64_t r = 0; cols > 0 && r < rows; r += num_rows) {
        for (int64_t c = 0; c < cols; c += num_cols) {
            const struct tv_safetensors_rect rect = {r, rows - r < num_rows ? rows - r : num_rows,
                                                     c, cols - c < num_cols ? cols - c : num_cols};
            TV_TRY(tv_safetensors_read(file, tensor, &rect, block, rect.num_cols));
            tv_inspect_count(block, rect.num_rows * rect.num_cols, numbers);
        }
    }
    tv_safetensors_forget(file, tensor);
    return TV_OK;
}

static int has_numbers(const struct tv_safetensor *tensor)
{
    return strcmp(tensor->dtype, "F32") == 0 || strcmp(tensor->dtype, "BF16") == 0 ||
           strcmp(tensor->dtype, "F16") == 0;
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static json_t *describe(const struct tv_safetensors *file, const struct tv_safetensor *tensor)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->num_dims; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    return json_pack("{s:s, s:s, s:o, s:I, s:s}", "name", tensor->name, "dtype", tensor->dtype,
                     "shape", shape, "bytes", (json_int_t)tensor->bytes, "file",
                     name_of(tv_safetensors_path(file)));
}

/* Adds one tensor to the report; *nonfinite grows. */
static tv_status_t add_tensor(const struct tv_inspect_options *options,
                              const struct tv_safetensors *file, const struct tv_safetensor *tensor,
                              float *block, json_t *tensors, int64_t *nonfinite)
{
    struct tv_inspect_numbers numbers = {0};
    json_t *entry = describe(file, tensor);
    if (entry == NULL || json_array_append_new(tensors, entry) != 0)
        return TV_ERR(TV_NO_MEMORY, "%s: its description", tensor->name);
    if (options->is_quick || !has_numbers(tensor))
        return TV_OK;
    TV_TRY(read_numbers(file, tensor, block, &numbers));
    tv_inspect_describe_numbers(&numbers, entry);
    *nonfinite += numbers.nonfinite;
    return TV_OK;
}

static tv_status_t inspect_files(const struct tv_inspect_options *options,
                                 const struct tv_hf_files *files, json_t *report)
{
    int64_t nonfinite = 0, bytes = 0;
    json_t *tensors = json_array();
    float *block = malloc(TV_INSPECT_BLOCK * sizeof(*block));
    tv_status_t status = TV_OK;
    if (tensors == NULL || block == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%d numbers", TV_INSPECT_BLOCK);
    for (int f = 0; f < tv_hf_files_count(files) && status == TV_OK; f++) {
        const struct tv_safetensors *file = tv_hf_files_at(files, f);
        for (int i = 0; i < tv_safetensors_count(file) && status == TV_OK; i++) {
            const struct tv_safetensor *tensor = tv_safetensors_at(file, i);
            bytes += tensor->bytes;
            status = add_tensor(options, file, tensor, block, tensors, &nonfinite);
        }
    }
    free(block);
    json_object_set_new(report, "files", json_integer(tv_hf_files_count(files)));
    json_object_set_new(report, "tensor_bytes", json_integer(bytes));
    if (!options->is_quick)
        json_object_set_new(report, "nonfinite", json_integer(nonfinite));
    json_object_set_new(report, "tensors", tensors);
    return status;
}

tv_status_t tv_inspect_safetensors(const struct tv_inspect_options *options, struct json_t *report)
{
    struct tv_hf_files *files = NULL;
    TV_TRY(tv_hf_files_open(options->path, &files));
    const tv_status_t status = inspect_files(options, files, report);
    tv_hf_files_close(files);
    return status;
}
