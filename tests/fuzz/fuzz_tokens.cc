// Headers of token files. The first byte picks one: l, a shard of llm.c; m, Megatron's index: two bytes
// (low, high) say how many of the last bytes are the .bin file. What is accepted lies in the files.
#pragma GCC diagnostic ignored "-Wshadow" // a function and a struct of one name, as C may have
#include "train/tokens_internal.h"
#include <cstdlib>
#include <cstring>
#include <vector>

static void require(bool condition)
{
    if (!condition)
        std::abort();
}

static void check(const tv_tokens &tokens)
{
    require(tokens.count >= 0 && tokens.count <= tokens.map.bytes);
    std::vector<int32_t> ids((size_t)tokens.count + 1);
    require(tv_tokens_read(&tokens, 0, tokens.count, ids.data()) == TV_OK);
    require(tv_tokens_read(&tokens, 1, tokens.count, ids.data()) != TV_OK);
    int64_t before = 0;
    for (int64_t d = 0; d < tv_tokens_num_documents(&tokens); d++) {
        const int64_t end = tv_tokens_document_end(&tokens, d);
        require(end >= before && end <= tokens.count);
        before = end;
    }
    require(tv_tokens_num_documents(&tokens) == 0 || before == tokens.count);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    char path[] = "file";
    tv_tokens tokens = {};
    tokens.path = path;
    tv_status_t status = TV_OK;
    if (data[0] == 'l') {
        tokens.format = TV_TOKENS_LLMC;
        tokens.map = {data + 1, (int64_t)size - 1};
        status = tv_llmc_parse(&tokens);
    } else {
        const size_t asked = (size_t)data[1] | (size_t)data[2] << 8;
        const size_t bin = asked < size - 3 ? asked : size - 3;
        tokens.format = TV_TOKENS_MEGATRON;
        tokens.index = {data + 3, (int64_t)(size - 3 - bin)};
        tokens.map = {data + size - bin, (int64_t)bin};
        status = tv_megatron_parse(&tokens);
    }
    if (status == TV_OK)
        check(tokens);
    else
        require(status == TV_BAD_FILE && std::strlen(tv_error_message()) > 0);
    return 0;
}
