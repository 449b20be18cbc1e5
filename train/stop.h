/* train/stop.h -- wishes to end a run before its last step: SIGTERM, SIGUSR1, SIGINT, --exit-after.
 *
 * Handlers only set flags. Each rank puts its own wish into a sum that every step makes anyway (train/step.c), so all
 * stop behind the same step, whichever of them was told. The flags are the process's: ranks that are threads share
 * them. */
#ifndef TV_TRAIN_STOP_H
#define TV_TRAIN_STOP_H
#include "base/status.h"

TV_BEGIN_C
/* In the order of what is said where several are wished for. */
typedef enum {
    TV_STOP_NONE,
    TV_STOP_TIME,
    TV_STOP_SIGUSR1,
    TV_STOP_SIGTERM,
    TV_STOP_SIGINT,
    TV_NUM_STOPS
} tv_stop_t;
const char *tv_stop_name(tv_stop_t stop); /* "--exit-after", "SIGTERM", ... */

/* Catch the signals from now on, and count the minutes from here; 0: no end of time. A second SIGINT leaves the process
 * at once with exit code 130. Errors: TV_INTERNAL. */
TV_MUST_CHECK tv_status_t tv_stop_watch(double exit_after_minutes);
/* What this process has been told so far. */
tv_stop_t tv_stop_wish(void);
/* Tell people, once per process, that a signal was heard. Call it often. */
void tv_stop_announce(void);
TV_END_C
#endif
