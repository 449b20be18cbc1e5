/* base/clock.h -- the one clock: seconds that only go forward, from an arbitrary start. */
#ifndef TV_BASE_CLOCK_H
#define TV_BASE_CLOCK_H
#include "base/status.h"

TV_BEGIN_C
double tv_clock_seconds(void); /* CLOCK_MONOTONIC */
TV_END_C
#endif
