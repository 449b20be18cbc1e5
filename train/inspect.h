/* train/inspect.h -- what a file or folder holds, found out and proved, as one JSON object.
 *
 * {"kind", "path", ...what the kind has..., "tensors": [{"name", "dtype", "shape", "bytes", "file",
 * "rms", "largest", "nonfinite"}...], "nonfinite"}; of a checkpoint tensors have "state" and "slices"
 * in place of "file", and "shards" are [{"file", "bytes", "xxh3"}...]. rms and largest (of the absolute values) are
 * over finite numbers; they and nonfinite are there where numbers were read. */
#ifndef TV_TRAIN_INSPECT_H
#define TV_TRAIN_INSPECT_H
#include "train/inspect_options.h"

TV_BEGIN_C
struct json_t; /* jansson.h */
/* The caller owns the reference. Errors: TV_BAD_FILE (damaged, or of no kind that is known),
 * TV_INVALID, TV_NO_MEMORY. Weights that are not finite are no error here. */
TV_MUST_CHECK tv_status_t tv_inspect(const struct tv_inspect_options *options,
                                     struct json_t **report_out);
/* The same object for people. */
void tv_inspect_print(const struct json_t *report, FILE *out);
TV_END_C
#endif
