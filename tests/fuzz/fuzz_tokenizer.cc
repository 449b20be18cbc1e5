// A tokenizer.json, a byte 0, and a text. What is accepted encodes any UTF-8 into ids of its vocabulary,
// the same ones whether the text is cut or not.
#include "train/tokenizer_internal.h"
#include <cstdlib>
#include <cstring>
#include <jansson.h>
#include <string>

static void require(bool condition)
{
    if (!condition)
        std::abort();
}

static void check(struct tv_tokenizer *tokenizer, const std::string &text)
{
    const auto bytes = (int64_t)text.size();
    if (tv_tokenizer_check_text(tokenizer, text.data(), bytes) != TV_OK)
        return;
    struct tv_tokenizer_worker *worker = nullptr;
    struct tv_ids whole = {}, pieces = {};
    require(tv_tokenizer_worker_create(&worker) == TV_OK);
    require(tv_tokenizer_encode(tokenizer, worker, text.data(), bytes, 0, bytes, &whole) == TV_OK);
    for (int64_t at = 0; at < bytes;) {
        const int64_t end = tv_tokenizer_cut(tokenizer, text.data(), bytes, at);
        require(end > at && end <= bytes);
        require(tv_tokenizer_encode(tokenizer, worker, text.data(), bytes, at, end, &pieces) ==
                TV_OK);
        at = end;
    }
    require(whole.num == pieces.num && whole.num <= bytes);
    for (int64_t i = 0; i < whole.num; i++)
        require(whole.ids[i] == pieces.ids[i] && whole.ids[i] < tokenizer->vocab_size);
    tv_ids_free(&whole);
    tv_ids_free(&pieces);
    tv_tokenizer_worker_destroy(worker);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const auto *zero = static_cast<const uint8_t *>(std::memchr(data, 0, size));
    const size_t json_bytes = zero != nullptr ? (size_t)(zero - data) : size;
    const char *text = reinterpret_cast<const char *>(data);
    json_t *json = json_loadb(text, json_bytes, JSON_REJECT_DUPLICATES, nullptr);
    if (!json_is_object(json)) {
        json_decref(json);
        return 0;
    }
    struct tv_tokenizer tokenizer = {};
    const tv_status_t status = tv_tokenizer_parse_bpe("file", json, &tokenizer);
    json_decref(json);
    if (status != TV_OK) {
        require((status == TV_BAD_FILE || status == TV_UNSUPPORTED) &&
                std::strlen(tv_error_message()) > 0);
        return 0;
    }
    check(&tokenizer,
          zero != nullptr ? std::string(text + json_bytes + 1, size - json_bytes - 1) : "");
    tokenizer.ops->close(tokenizer.state);
    return 0;
}
