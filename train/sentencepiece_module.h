/* train/sentencepiece_module.h -- what libtrivet_sentencepiece.so offers: SentencePiece's library is
 * C++, and no process loads it that does not tokenize with it. */
#ifndef TV_TRAIN_SENTENCEPIECE_MODULE_H
#define TV_TRAIN_SENTENCEPIECE_MODULE_H
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
enum { TV_SENTENCEPIECE_ABI = 1 };
struct tv_sentencepiece {
    int abi;
    /* A model, or NULL with the reason in message. */
    void *(*open)(const char *path, char *message, size_t message_bytes);
    void (*close)(void *model);
    int (*vocab_size)(const void *model);
    int (*find)(const void *model, const char *piece); /* -1: none */
    /* Calls add for each id until it does not return 0; returns what it returned, or -1 when the
     * library fails. Thread-safe. */
    int (*encode)(const void *model, const char *text, size_t bytes,
                  int (*add)(void *context, int id), void *context);
};
typedef const struct tv_sentencepiece *(*tv_sentencepiece_fn)(void);
const struct tv_sentencepiece *tv_sentencepiece_functions(void); /* the library's one symbol */
#ifdef __cplusplus
}
#endif
#endif
