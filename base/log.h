/* base/log.h -- lines for people, on standard error, one write(2) per line so that ranks never mix
 * inside a line.
 *
 * The level and the sink are the only global state of the library. A rank that should be silent
 * (all but one) sets a higher level for its own thread. */
#ifndef TV_BASE_LOG_H
#define TV_BASE_LOG_H
#include "base/status.h"

TV_BEGIN_C
typedef enum { TV_LOG_DEBUG, TV_LOG_INFO, TV_LOG_WARN, TV_LOG_ERROR, TV_LOG_OFF } tv_log_level_t;

/* "debug", "info", "warn", "error", "off". Errors: TV_INVALID for another word. */
TV_MUST_CHECK tv_status_t tv_log_level_parse(const char *word, tv_log_level_t *level_out);
void tv_log_set_level(tv_log_level_t level); /* for the process; default TV_LOG_INFO */
void tv_log_set_prefix(
    const char *prefix); /* for this thread, copied; "" by default, e.g. "rank 3" */
void tv_log(tv_log_level_t level, const char *format, ...) TV_PRINTF(2, 3);
TV_END_C
#endif
