/* pipeline/schedule_build_zero_bubble.c -- zb-h1 and zb-h2: one chunk per stage, the backward in
 * two parts (the idea: Qi et al. 2023, arXiv:2401.10241; this closed list is our own).
 *
 * One family: e extra warm-up forwards, 0 <= e <= P-1, for m >= P + e. zb-h1 is e = 0; zb-h2 is the
 * largest e that m and the slots allow; fewer micro-batches than stages are cut out of e = 0, m = P.
 * Stage r, with a = min(e, P-1-r) and f = r + e - a:
 *
 *     F x (P-r+a)   (I W F) x (m-P-e)   (I F) x f   (I W) x (P-1-r+a)   I   W x (f+1)
 *
 * Makespan max(3m+P-1, 2m+2P-1): from m = P on, bubble (P-1)/(3m+P-1) for every e, since the last
 * stage starts P-1 late in any case. In its own window stage r waits max(0, P-1-r-e): nothing in
 * zb-h2 from m = 2P-1 on. Slots min(P, m) + e on every stage until W, P - r + a until I. */
#include "pipeline/schedule_build_internal.h"

void tv_write_zb_h(struct tv_list_writer *writer)
{
    const int P = writer->P, r = writer->r, m = writer->m, e = writer->warmup;
    const int a = tv_min_int(e, P - 1 - r), f = r + e - a;
    tv_list_repeat(writer, P - r + a, "F");
    tv_list_repeat(writer, m - P - e, "I W F");
    tv_list_repeat(writer, f, "I F");
    tv_list_repeat(writer, P - 1 - r + a, "I W");
    tv_list_repeat(writer, 1, "I");
    tv_list_repeat(writer, f + 1, "W");
}

struct tv_list_choice tv_choose_zb_h1(const struct tv_schedule_args *args)
{
    return (struct tv_list_choice){.num_micro = tv_max_int(args->num_micro, args->num_stages)};
}

struct tv_list_choice tv_choose_zb_h2(const struct tv_schedule_args *args)
{
    const int P = args->num_stages;
    struct tv_list_choice choice = tv_choose_zb_h1(args);
    choice.warmup = tv_min_int(P - 1, choice.num_micro - P);
    if (args->slot_limit > 0)
        choice.warmup = tv_max_int(0, tv_min_int(choice.warmup, args->slot_limit - P));
    return choice;
}
