// The safetensors reader: any bytes are a file whose tensors lie in it side by side and can be read to
// their last number, or a sentence.
#include "base/log.h"
#include "fuzz_file.h"
#include "train/safetensors.h"
#include <cstring>
#include <vector>

static void read_all(const tv_safetensors *file, const tv_safetensor *tensor)
{
    const int64_t bytes = tv_safetensors_dtype_bytes(tensor->dtype);
    require(bytes > 0 && tensor->bytes % bytes == 0);
    const int64_t rows = tensor->num_dims > 0 ? tensor->shape[0] : 1;
    const int64_t cols = rows > 0 ? tensor->bytes / bytes / rows : 0;
    std::vector<float> row((size_t)cols);
    for (int64_t r = 0; cols > 0 && r < rows; r++) {
        const tv_safetensors_rect rect = {r, 1, 0, cols};
        const tv_status_t status = tv_safetensors_read(file, tensor, &rect, row.data(), cols);
        require(status == TV_OK || status == TV_BAD_FILE); // another dtype
    }
    const tv_safetensors_rect beyond = {rows, 1, 0, cols};
    float nothing = 0;
    if (cols > 0)
        require(tv_safetensors_read(file, tensor, &beyond, &nothing, cols) != TV_OK);
    tv_safetensors_forget(file, tensor);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tv_log_set_level(TV_LOG_OFF);
    const FuzzFile input(data, size);
    tv_safetensors *file = nullptr;
    if (tv_safetensors_open(input.path(), &file) != TV_OK) {
        require(std::strlen(tv_error_message()) > 0 && file == nullptr);
        return 0;
    }
    int64_t end = 0;
    for (int i = 0; i < tv_safetensors_count(file); i++) {
        const tv_safetensor *tensor = tv_safetensors_at(file, i);
        require(tensor->offset == end && tensor->bytes >= 0);
        end += tensor->bytes;
        require(tv_safetensors_find(file, tensor->name) == tensor);
        read_all(file, tensor);
    }
    require(end <= (int64_t)size);
    tv_safetensors_close(file);
    return 0;
}
