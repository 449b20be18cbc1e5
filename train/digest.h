/* train/digest.h -- what tells one file from another. */
#ifndef TV_TRAIN_DIGEST_H
#define TV_TRAIN_DIGEST_H
#include <stdint.h>

/* The length, and the XXH3 (64 bits, seed 0) of the bytes. */
struct tv_file_digest {
    int64_t bytes;
    uint64_t hash;
};
#endif
