/* pipeline/schedule_draw.h -- the picture of a timed schedule: a row per stage, time to the right.
 *
 * Both pictures come from tv_schedule_simulate's times; messages are not drawn. */
#ifndef TV_PIPELINE_SCHEDULE_DRAW_H
#define TV_PIPELINE_SCHEDULE_DRAW_H
#include "pipeline/simulate.h"
#include <stdio.h>

TV_BEGIN_C
enum { TV_DRAW_MIN_COLUMNS = 20 };

/* Rows of letters F, B, I, W with the micro-batch where there is room, '-' for the rest of an
 * action and '.' for idle time; odd chunks in lower case; below, the time axis and a legend. Where
 * actions are shorter than a column, the picture is scaled down: each column then shows what fills
 * most of its time. No line is longer than `columns` (at least TV_DRAW_MIN_COLUMNS are used).
 * is_coloured: with ANSI colours by kind. Errors: TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_schedule_draw_text(const struct tv_schedule *schedule,
                                                const struct tv_schedule_timing *timing,
                                                int columns, int is_coloured, FILE *out);

/* A self-contained SVG: boxes coloured by kind and shaded by chunk, with the micro-batch where it
 * fits, axis, legend, and a title with name, P, v, m and bubble. Errors: TV_IO. */
TV_MUST_CHECK tv_status_t tv_schedule_draw_svg(const struct tv_schedule *schedule,
                                               const struct tv_schedule_timing *timing, FILE *out);
TV_END_C
#endif
