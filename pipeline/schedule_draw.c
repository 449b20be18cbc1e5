/* pipeline/schedule_draw.c -- a schedule as rows of letters. */
#include "pipeline/schedule_draw.h"
#include "pipeline/schedule_draw_internal.h"
#include "pipeline/schedule_internal.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what both pictures share ---- */

static int same_time(const struct tv_stage_timing *stage, int i, int k)
{
    return stage->times[i].start >= stage->times[k].start &&
           stage->times[i].end <= stage->times[k].end;
}

/* The compute action before (step -1) or behind (step 1) action i; -1: none. */
static int next_compute(const struct tv_action_list *list, int i, int step)
{
    for (i += step; i >= 0 && i < list->num_actions; i += step) {
        if (tv_action_is_compute(list->actions[i].kind))
            return i;
    }
    return -1;
}

struct tv_action_time tv_draw_span(const struct tv_schedule *schedule,
                                   const struct tv_schedule_timing *timing, int stage, int i)
{
    const struct tv_action_list *list = &schedule->stages[stage];
    const struct tv_stage_timing *timed = &timing->stages[stage];
    struct tv_action_time span = timed->times[i];
    const int before = next_compute(list, i, -1), behind = next_compute(list, i, 1);
    const double middle = (span.start + span.end) / 2;
    if (list->actions[i].is_paired && behind >= 0 && same_time(timed, i, behind))
        span.end = middle;
    else if (before >= 0 && list->actions[before].is_paired && same_time(timed, i, before))
        span.start = middle;
    return span;
}

double tv_draw_shortest(const struct tv_schedule *schedule, const struct tv_schedule_timing *timing)
{
    double shortest = timing->makespan;
    for (int s = 0; s < schedule->num_stages; s++) {
        for (int i = 0; i < schedule->stages[s].num_actions; i++) {
            if (!tv_action_is_compute(schedule->stages[s].actions[i].kind))
                continue;
            const struct tv_action_time span = tv_draw_span(schedule, timing, s, i);
            if (span.end > span.start)
                shortest = fmin(shortest, span.end - span.start);
        }
    }
    return shortest;
}

int tv_draw_has_kind(const struct tv_schedule *schedule, tv_action_kind_t kind)
{
    for (int s = 0; s < schedule->num_stages; s++) {
        for (int i = 0; i < schedule->stages[s].num_actions; i++) {
            if (schedule->stages[s].actions[i].kind == kind)
                return 1;
        }
    }
    return 0;
}

int tv_draw_num_digits(int number)
{
    int digits = 1;
    for (; number >= 10; number /= 10)
        digits++;
    return digits;
}

/* ---- letters ---- */

/* What a column shows: nothing, or kind * 2 + 1 for odd chunks. */
enum { IDLE = 8, NUM_CLASSES };

struct text_picture {
    const struct tv_schedule *schedule;
    const struct tv_schedule_timing *timing;
    int columns;        /* of a whole line */
    int label;          /* columns of a row's label and the blank behind it */
    int num_columns;    /* of a row behind its label */
    double scale;       /* columns per unit of time */
    int is_scaled_down; /* actions are shorter than columns */
    int is_coloured;
    char *letters;                 /* [num_columns] of the row in hand */
    signed char *classes;          /* [num_columns] */
    double (*filled)[NUM_CLASSES]; /* [num_columns] share of the column, when scaled down */
};

static int class_of(const struct tv_action *a)
{
    return (int)a->kind * 2 + a->chunk % 2;
}

static char letter_of(int class)
{
    const char letter = tv_action_kind_name((tv_action_kind_t)(class / 2))[0];
    return class % 2 == 0 ? letter : (char)tolower((unsigned char)letter);
}

/* As many whole columns as fit for the shortest action, so that equal actions look equal; room for
 * letter, number and one more at most. If not even one fits, the time is scaled to the columns. */
static void set_scale(struct text_picture *p)
{
    const double makespan = p->timing->makespan;
    const double shortest = tv_draw_shortest(p->schedule, p->timing);
    p->label = tv_draw_num_digits(p->schedule->num_stages - 1) + 1;
    p->num_columns = p->columns - p->label;
    p->scale = makespan > 0 ? p->num_columns / makespan : 0;
    const double each = fmin(floor(p->scale * shortest * (1 + 1e-12)),
                             2 + tv_draw_num_digits(p->schedule->num_micro - 1));
    p->is_scaled_down = each < 1;
    if (p->is_scaled_down)
        return;
    p->scale = each / shortest;
    p->num_columns = (int)lround(makespan * p->scale);
}

/* Letter, number where it fits, and dashes. */
static void paint_action(struct text_picture *p, const struct tv_action *a,
                         struct tv_action_time span)
{
    char text[16];
    const int first = (int)lround(span.start * p->scale), end = (int)lround(span.end * p->scale);
    const int length = snprintf(text, sizeof(text), "%c%d", letter_of(class_of(a)), a->micro);
    for (int c = first; c < end; c++) {
        const int fits = length <= end - first ? length : 1;
        p->letters[c] = c - first < fits ? text[c - first] : '-';
        p->classes[c] = (signed char)class_of(a);
    }
}

static void fill_columns(struct text_picture *p, const struct tv_action *a,
                         struct tv_action_time span)
{
    const double start = span.start * p->scale, end = span.end * p->scale;
    for (int c = (int)start; c < p->num_columns && c < end; c++) {
        const double share = fmin(end, c + 1.0) - fmax(start, c);
        p->filled[c][class_of(a)] += share;
        p->filled[c][IDLE] -= share;
    }
}

static void paint_columns(struct text_picture *p)
{
    for (int c = 0; c < p->num_columns; c++) {
        int most = IDLE;
        for (int class = 0; class < IDLE; class ++)
            most = p->filled[c][class] > p->filled[c][most] ? class : most;
        p->classes[c] = (signed char)most;
        p->letters[c] = most == IDLE ? '.' : letter_of(most);
    }
}

static void paint_row(struct text_picture *p, int stage)
{
    const struct tv_action_list *list = &p->schedule->stages[stage];
    for (int c = 0; c < p->num_columns; c++) {
        p->letters[c] = '.';
        p->classes[c] = IDLE;
        memset(p->filled[c], 0, sizeof(p->filled[c]));
        p->filled[c][IDLE] = 1;
    }
    for (int i = 0; i < list->num_actions; i++) {
        const struct tv_action *a = &list->actions[i];
        if (!tv_action_is_compute(a->kind))
            continue;
        const struct tv_action_time span = tv_draw_span(p->schedule, p->timing, stage, i);
        if (p->is_scaled_down)
            fill_columns(p, a, span);
        else
            paint_action(p, a, span);
    }
    if (p->is_scaled_down)
        paint_columns(p);
}

/* Black on a colour by kind, a brighter one for odd chunks; the terminal's own for idle time. */
static void set_colour(int class, FILE *out)
{
    static const int background[] = {[TV_ACT_FORWARD] = 44,
                                     [TV_ACT_BACKWARD] = 42,
                                     [TV_ACT_BACKWARD_INPUT] = 46,
                                     [TV_ACT_BACKWARD_WEIGHT] = 43};
    if (class == IDLE)
        fputs("\033[0m", out);
    else
        fprintf(out, "\033[30;%dm", background[class / 2] + class % 2 * 60);
}

static void print_row(const struct text_picture *p, int stage, FILE *out)
{
    fprintf(out, "%*d ", p->label - 1, stage);
    for (int c = 0; c < p->num_columns; c++) {
        if (p->is_coloured && p->classes[c] != (c > 0 ? p->classes[c - 1] : IDLE))
            set_colour(p->classes[c], out);
        fputc(p->letters[c], out);
    }
    fputs(p->is_coloured ? "\033[0m\n" : "\n", out);
}

/* 0 under the first column, the makespan under the last. */
static void print_axis(const struct text_picture *p, FILE *out)
{
    char end[32];
    const int length = snprintf(end, sizeof(end), "%.6g", p->timing->makespan);
    const int gap = p->num_columns - 1 - length;
    fprintf(out, "%*s0%*s%s\n", p->label, "", gap > 0 ? gap : 1, "", end);
}

static void print_legend(const struct text_picture *p, FILE *out)
{
    const struct tv_schedule *s = p->schedule;
    const char *const entries[] = {
        "F forward",
        tv_draw_has_kind(s, TV_ACT_BACKWARD) ? "B backward" : NULL,
        tv_draw_has_kind(s, TV_ACT_BACKWARD_INPUT) ? "I input gradient" : NULL,
        tv_draw_has_kind(s, TV_ACT_BACKWARD_WEIGHT) ? "W weight gradient" : NULL,
        s->num_chunks > 1 ? "small: odd chunks" : NULL,
        ". idle",
    };
    int column = 0;
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        if (entries[i] == NULL)
            continue;
        const int length = (int)strlen(entries[i]);
        if (column > 0 && column + 2 + length >= p->columns) {
            fputs(",\n", out);
            column = 0;
        }
        column += fprintf(out, "%s%s", column > 0 ? ", " : "", entries[i]);
    }
    fputc('\n', out);
}

static tv_status_t alloc(struct text_picture *p)
{
    const size_t columns = (size_t)p->num_columns + 1;
    p->letters = malloc(columns);
    p->classes = malloc(columns);
    p->filled = malloc(columns * sizeof(*p->filled));
    return p->letters && p->classes && p->filled
               ? TV_OK
               : TV_ERR(TV_NO_MEMORY, "a picture of %d columns", p->num_columns);
}

tv_status_t tv_schedule_draw_text(const struct tv_schedule *schedule,
                                  const struct tv_schedule_timing *timing, int columns,
                                  int is_coloured, FILE *out)
{
    struct text_picture p = {.schedule = schedule,
                             .timing = timing,
                             .columns =
                                 columns > TV_DRAW_MIN_COLUMNS ? columns : TV_DRAW_MIN_COLUMNS,
                             .is_coloured = is_coloured};
    set_scale(&p);
    tv_status_t status = alloc(&p);
    for (int s = 0; s < schedule->num_stages && status == TV_OK; s++) {
        paint_row(&p, s);
        print_row(&p, s, out);
    }
    if (status == TV_OK) {
        print_axis(&p, out);
        print_legend(&p, out);
        if (ferror(out))
            status = TV_ERR(TV_IO, "schedule %s: the picture cannot be written", schedule->name);
    }
    free(p.letters);
    free(p.classes);
    free(p.filled);
    return status;
}
