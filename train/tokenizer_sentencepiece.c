/* train/tokenizer_sentencepiece.c -- SentencePiece models, through a library that is opened when one is
 * named: builds without SentencePiece do not have it, and say so. */
#include "train/files.h"
#include "train/sentencepiece_module.h"
#include "train/tokenizer_internal.h"
#include <dlfcn.h>

#define LIBRARY "libtrivet_sentencepiece.so"

static const struct tv_sentencepiece *functions; /* once the library is open, for good */

static tv_status_t load(const char *path)
{
    if (functions != NULL)
        return TV_OK;
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return TV_ERR(
            TV_UNSUPPORTED,
            "%s would be a SentencePiece model, which this build does not read (%s); build "
            "with libsentencepiece-dev, or give bytes or a tokenizer.json",
            path, dlerror());
    const tv_sentencepiece_fn get =
        (tv_sentencepiece_fn)dlsym(library, "tv_sentencepiece_functions");
    if (get == NULL || get()->abi != TV_SENTENCEPIECE_ABI) {
        dlclose(library);
        return TV_ERR(TV_UNSUPPORTED, LIBRARY " is of another version of trivet");
    }
    functions = get();
    return TV_OK;
}

static int add(void *context, int id)
{
    return tv_ids_add(context, (uint32_t)id) == TV_OK ? 0 : 1;
}

static tv_status_t encode(const void *state, struct tv_tokenizer_worker *worker, const char *text,
                          int64_t bytes, int64_t first, int64_t end, struct tv_ids *ids)
{
    (void)worker, (void)bytes;
    const int failed = functions->encode(state, text + first, (size_t)(end - first), add, ids);
    if (failed > 0)
        return TV_NO_MEMORY; /* tv_ids_add has said it */
    return failed == 0 ? TV_OK : TV_ERR(TV_INTERNAL, "SentencePiece fails to encode a text");
}

static int64_t find(const void *state, const char *text)
{
    return functions->find(state, text);
}

static void close_model(void *state)
{
    functions->close(state);
}

static const struct tv_tokenizer_ops sentencepiece_ops = {"sentencepiece", 1, encode, find,
                                                          close_model};

tv_status_t tv_tokenizer_open_sentencepiece(const char *path, struct tv_tokenizer *tokenizer_out)
{
    struct tv_file_map map;
    char message[256] = "";
    TV_TRY(tv_file_map(path, &map)); /* is it there? */
    tv_file_unmap(&map);
    TV_TRY(load(path));
    void *model = functions->open(path, message, sizeof(message));
    if (model == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: not a SentencePiece model: %s", path, message);
    *tokenizer_out = (struct tv_tokenizer){
        .ops = &sentencepiece_ops, .state = model, .vocab_size = functions->vocab_size(model)};
    return TV_OK;
}
