/* train/map_emit.h -- host files and scripts with which other launchers start ranks in mesh order.
 *
 * In each, rank r of the job they start is mesh rank r = (p D + d) T + t; local ranks of a node
 * ascend with it. */
#ifndef TV_TRAIN_MAP_EMIT_H
#define TV_TRAIN_MAP_EMIT_H
#include "train/map_plan.h"

TV_BEGIN_C
/* "KIND[:FILE],...": is all of it known, with at most one KIND without a FILE? *to_stdout_out: is
 * there one? text NULL: nothing to emit. Errors: TV_INVALID with what is known. */
TV_MUST_CHECK tv_status_t tv_map_emit_check(const char *text, int *to_stdout_out);
/* Write them. How to use a file stands at its top, or for formats without comments on standard
 * error. Errors: TV_INVALID (a node's name that is not a host's; a file that cannot be made),
 * TV_UNSUPPORTED (the launcher cannot express the layout, naming a node), TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_map_emit(const struct tv_map_plan *plan, const char *text, FILE *out);
TV_END_C
#endif
