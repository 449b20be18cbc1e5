/* pipeline/schedule_build_internal.h -- how a builder's rule becomes a list. */
#ifndef TV_PIPELINE_SCHEDULE_BUILD_INTERNAL_H
#define TV_PIPELINE_SCHEDULE_BUILD_INTERNAL_H
#include "pipeline/schedule_internal.h"

TV_BEGIN_C
/* Writes the list of one stage, each kind and chunk in the order of the micro-batches. */
struct tv_list_writer {
    struct tv_schedule *schedule;
    int P, r, m;             /* stages, this stage, micro-batches of the list */
    int warmup;              /* see tv_list_choice */
    int num_forwards[2];     /* [chunk] written so far */
    int num_backwards[2];    /* B or I */
    int num_weights[2];      /* W */
    int num_inputs_searched; /* actions of the list whose I have got their W through "Wq" */
};

/* What a rule makes of the arguments. */
struct tv_list_choice {
    int num_micro; /* >= m: the lists are written for so many, then cut to m */
    int warmup;    /* zb-h: extra forwards; interleaved: forwards per stage below; else unused */
};

/* Appends the actions `times` times, with the next micro-batch of each: "I W F" for one chunk,
 * "F1 I1 W1" with chunks, "{F0 B1}" for a pair. "Wq" is the W of the oldest I that has none yet, of
 * either chunk, or nothing; a list that has it takes every W by it. At most two chunks. */
void tv_list_repeat(struct tv_list_writer *writer, int times, const char *actions);

struct tv_list_choice tv_choose_all(const struct tv_schedule_args *args); /* m, no choice */

void tv_write_naive(struct tv_list_writer *writer);
void tv_write_gpipe(struct tv_list_writer *writer);
void tv_write_1f1b(struct tv_list_writer *writer);

struct tv_list_choice tv_choose_interleaved(const struct tv_schedule_args *args);
void tv_write_interleaved(struct tv_list_writer *writer);

struct tv_list_choice tv_choose_zb_h1(const struct tv_schedule_args *args);
struct tv_list_choice tv_choose_zb_h2(const struct tv_schedule_args *args);
void tv_write_zb_h(struct tv_list_writer *writer);

struct tv_list_choice tv_choose_zb_v(const struct tv_schedule_args *args);
void tv_write_zb_v(struct tv_list_writer *writer);
struct tv_list_choice tv_choose_dualpipe_v(const struct tv_schedule_args *args);
void tv_write_dualpipe_v(struct tv_list_writer *writer);
void tv_write_v_half(struct tv_list_writer *writer);
void tv_write_v_min(struct tv_list_writer *writer);

static inline int tv_min_int(int a, int b)
{
    return a < b ? a : b;
}
static inline int tv_max_int(int a, int b)
{
    return a > b ? a : b;
}
TV_END_C
#endif
