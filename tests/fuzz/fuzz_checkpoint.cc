/* tests/fuzz/fuzz_checkpoint.cc -- index.json and state.json of checkpoints, each text read as both. What is accepted
 * must keep its promises: slices that are all of a tensor once, names that stay in the folder, counts that fit. */
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "train/checkpoint_internal.h"
#pragma GCC diagnostic pop

static void require(bool condition)
{
    if (!condition)
        std::abort();
}

static void check_tensor(const struct tv_index *index, const struct tv_index_tensor *tensor)
{
    require(tv_index_find(index, tensor->kind, tensor->name) == tensor);
    const int64_t rows = tensor->shape[0], cols = tensor->shape[1];
    if (rows > 1 << 20 || cols > 1 << 20 || rows * cols > 1 << 20)
        return; // too large to count here
    std::vector<char> times((size_t)(rows * cols));
    for (int i = 0; i < tensor->num_slices; i++) {
        const struct tv_index_slice *slice = &tensor->slices[i];
        require(slice->shard >= 0 && slice->shard < index->num_shards);
        for (int64_t r = slice->row; r < slice->row + slice->num_rows; r++)
            for (int64_t c = slice->col; c < slice->col + slice->num_cols; c++)
                times.at((size_t)(r * cols + c))++;
    }
    for (const char n : times)
        require(n == 1);
}

static bool read_index(const char *text, size_t size)
{
    struct tv_index index = {};
    if (tv_index_parse("index.json", text, size, &index) != TV_OK) {
        require(index.json == nullptr && std::strlen(tv_error_message()) > 0);
        return false;
    }
    for (int i = 0; i < index.num_shards; i++) {
        const char *name = index.shards[i].name;
        require(std::strchr(name, '/') == nullptr && name[0] != '.');
        require(index.shards[i].digest.bytes >= 0);
    }
    for (int i = 0; i < index.num_tensors; i++)
        check_tensor(&index, &index.tensors[i]);
    tv_index_free(&index);
    return true;
}

static bool read_state(const char *text, size_t size)
{
    struct tv_checkpoint checkpoint = {};
    struct tv_saved_state *state = &checkpoint.state;
    if (tv_saved_state_parse("state.json", text, size, state) != TV_OK) {
        require(state->json == nullptr && std::strlen(tv_error_message()) > 0);
        return false;
    }
    require(state->step >= state->num_updates && state->num_updates >= 0);
    char name[] = "train";
    char *argv[] = {name, nullptr};
    struct tv_train_options options = {};
    require(tv_train_options_parse(1, argv, &options) == TV_OK);
    const tv_status_t status = tv_checkpoint_inherit(&checkpoint, &options);
    require(status == TV_OK || status == TV_BAD_FILE);
    tv_train_options_free(&options);
    tv_saved_state_free(state);
    return true;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = reinterpret_cast<const char *>(data);
    const bool is_index = read_index(text, size), is_state = read_state(text, size);
    require(!is_index || !is_state);
    return 0;
}
