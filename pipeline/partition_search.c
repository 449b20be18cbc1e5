/* pipeline/partition_search.c -- the split with the least maximum stage time, for layers of any
 * cost.
 *
 * One piece a stage: dynamic programming over the cuts, O(P U^2) at worst. Several pieces a stage:
 * depth first over the cuts in model order, leaving a branch when a stage is no better than the
 * best split so far, or when the rest of the units does not fit below it any more. */
#include "pipeline/partition_internal.h"
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES 10000000 /* a fraction of a second */

struct chain {
    const struct tv_partition_args *args;
    enum tv_partition_by by;
    int num_units;
    int64_t limit;               /* bytes of a stage */
    struct tv_unit_cost *before; /* [num_units + 1] costs of units 0 .. u-1 together */
};

struct cost {
    double value; /* what is minimised */
    int64_t bytes;
};

static struct cost range_cost(const struct chain *c, int num_slots, int num_works, int first,
                              int end)
{
    const struct tv_unit_cost *a = &c->before[first], *b = &c->before[end];
    const int64_t bytes = b->fixed_bytes - a->fixed_bytes +
                          num_slots * (b->slot_bytes - a->slot_bytes) +
                          num_works * (b->work_bytes - a->work_bytes);
    return (struct cost){c->by == TV_BY_SECONDS ? b->seconds - a->seconds : (double)bytes, bytes};
}

static struct cost piece_cost(const struct chain *c, int piece, int first, int end)
{
    return range_cost(c, c->args->num_slots[piece], c->args->num_works[piece], first, end);
}

/* What a stage has before it holds a unit. */
static struct cost stage_cost(const struct chain *c, int stage)
{
    const int64_t bytes = tv_partition_stage_bytes(c->args, stage);
    return (struct cost){c->by == TV_BY_SECONDS ? 0 : (double)bytes, bytes};
}

/* The best split of units 0 .. end-1 whose last piece is `piece`, from those with a piece less,
 * shorter [num_units + 1]. The best has the least maximum when `most` is infinite; else the least
 * sum of squares of pieces none of which is above `most`. begin_out: of the last piece. */
static double best_split(const struct chain *c, int piece, int end, double most,
                         const double *shorter, int *begin_out)
{
    const struct cost stage = stage_cost(c, c->args->stage_of[piece]);
    double best = INFINITY;
    for (int first = end - 1; first >= piece; first--) {
        const struct cost cost = piece_cost(c, piece, first, end);
        const double value = stage.value + cost.value;
        const double last = isinf(most) ? value : value * value;
        if (value > most || last > best || stage.bytes + cost.bytes > c->limit)
            break; /* a longer piece costs no less */
        const double whole = isinf(most) ? fmax(shorter[first], last) : shorter[first] + last;
        if (whole < best) { /* ties: the last piece is the shortest */
            best = whole;
            *begin_out = first;
        }
    }
    return best;
}

/* Every piece on its own. best [num_pieces + 1, num_units + 1], begin [num_pieces, num_units + 1]:
 * of the splits of units 0 .. end-1 into the first pieces. Returns the value of the whole. */
static double solve_chain(const struct chain *c, double most, double *best, int *begin)
{
    const int num_pieces = c->args->num_pieces;
    const size_t row = (size_t)c->num_units + 1;
    for (size_t i = 0; i < ((size_t)num_pieces + 1) * row; i++)
        best[i] = INFINITY;
    best[0] = 0;
    for (int piece = 0; piece < num_pieces; piece++) {
        const size_t at = (size_t)piece * row;
        for (int end = piece + 1; end <= c->num_units - (num_pieces - 1 - piece); end++)
            best[at + row + (size_t)end] =
                best_split(c, piece, end, most, &best[at], &begin[at + (size_t)end]);
    }
    return best[(size_t)num_pieces * row + (size_t)c->num_units];
}

/* The least maximum; among the splits that have it the least sum of squares. */
static tv_status_t split_chain(const struct chain *c, struct tv_unit_range *ranges_out,
                               double *largest_out)
{
    const size_t row = (size_t)c->num_units + 1, num_pieces = (size_t)c->args->num_pieces;
    double *best = malloc((num_pieces + 1) * row * sizeof(*best));
    int *begin = malloc(num_pieces * row * sizeof(*begin));
    if (best == NULL || begin == NULL) {
        free(begin);
        free(best);
        return TV_ERR(TV_NO_MEMORY, "a split of %d units into %zu pieces", c->num_units,
                      num_pieces);
    }
    *largest_out = solve_chain(c, INFINITY, best, begin);
    if (*largest_out < INFINITY) {
        solve_chain(c, *largest_out, best, begin);
        size_t end = (size_t)c->num_units;
        for (size_t piece = num_pieces; piece-- > 0;) {
            const int first = begin[piece * row + end];
            ranges_out[piece] = (struct tv_unit_range){first, (int)end - first};
            end = (size_t)first;
        }
    }
    free(begin);
    free(best);
    return TV_OK;
}

struct search {
    const struct chain *chain;
    struct cost *stages;         /* [num_stages] so far */
    int *num_pieces_left;        /* [num_stages] */
    int min_slots, min_works;    /* of all pieces: what the rest costs at least */
    struct tv_unit_range *range; /* [num_pieces] the branch */
    struct tv_unit_range *best;  /* [num_pieces] */
    double largest;              /* of best; infinite: none yet */
    int num_nodes_left;          /* negative: given up */
};

/* Can the units from `first` on be held below the best split so far? */
static bool rest_fits(const struct search *s, int first)
{
    const struct chain *c = s->chain;
    double room = 0;
    for (int i = 0; i < c->args->num_stages; i++) {
        if (s->num_pieces_left[i] > 0)
            room += s->largest - s->stages[i].value;
    }
    return range_cost(c, s->min_slots, s->min_works, first, c->num_units).value < room;
}

static void visit(struct search *s, int piece, int first)
{
    const struct chain *c = s->chain;
    const int num_later = c->args->num_pieces - 1 - piece;
    if (num_later < 0) {
        s->largest = 0;
        for (int i = 0; i < c->args->num_stages; i++)
            s->largest = fmax(s->largest, s->stages[i].value);
        memcpy(s->best, s->range, (size_t)c->args->num_pieces * sizeof(*s->best));
        return;
    }
    if (s->num_nodes_left < 0 || --s->num_nodes_left < 0 || !rest_fits(s, first))
        return;
    const int stage = c->args->stage_of[piece];
    const struct cost before = s->stages[stage];
    s->num_pieces_left[stage]--;
    for (int end = num_later == 0 ? c->num_units : first + 1; end <= c->num_units - num_later;
         end++) {
        const struct cost cost = piece_cost(c, piece, first, end);
        s->stages[stage].value = before.value + cost.value;
        s->stages[stage].bytes = before.bytes + cost.bytes;
        if (s->stages[stage].value >= s->largest || s->stages[stage].bytes > c->limit)
            break; /* a longer piece costs no less */
        s->range[piece] = (struct tv_unit_range){first, end - first};
        visit(s, piece + 1, end);
    }
    s->num_pieces_left[stage]++;
    s->stages[stage] = before;
}

/* A first split to be better than: every piece on its own, no limit. Taken if within the limit. */
static tv_status_t start_search(struct search *s)
{
    const struct tv_partition_args *args = s->chain->args;
    struct chain unlimited = *s->chain;
    unlimited.limit = INT64_MAX;
    double largest_piece;
    TV_TRY(split_chain(&unlimited, s->best, &largest_piece));
    s->largest = 0;
    for (int i = 0; i < args->num_stages; i++)
        s->stages[i] = stage_cost(s->chain, i);
    for (int i = 0; i < args->num_pieces; i++) {
        const struct tv_unit_range *r = &s->best[i];
        const struct cost cost = piece_cost(s->chain, i, r->first, r->first + r->num);
        s->stages[args->stage_of[i]].value += cost.value;
        s->stages[args->stage_of[i]].bytes += cost.bytes;
    }
    for (int i = 0; i < args->num_stages; i++) {
        const bool fits = s->stages[i].bytes <= s->chain->limit;
        s->largest = fits ? fmax(s->largest, s->stages[i].value) : INFINITY;
    }
    return TV_OK;
}

static tv_status_t run_search(struct search *s)
{
    const struct tv_partition_args *args = s->chain->args;
    s->min_slots = args->num_slots[0];
    s->min_works = args->num_works[0];
    for (int i = 0; i < args->num_pieces; i++) {
        s->min_slots = args->num_slots[i] < s->min_slots ? args->num_slots[i] : s->min_slots;
        s->min_works = args->num_works[i] < s->min_works ? args->num_works[i] : s->min_works;
        s->num_pieces_left[args->stage_of[i]]++;
    }
    TV_TRY(start_search(s));
    for (int i = 0; i < args->num_stages; i++)
        s->stages[i] = stage_cost(s->chain, i);
    s->num_nodes_left = MAX_NODES;
    visit(s, 0, 0);
    if (s->num_nodes_left < 0)
        return TV_ERR(TV_UNSUPPORTED,
                      "the best split of %d layers of different cost into %d pieces on %d stages "
                      "was not found in %d steps; one piece a stage or equal layers can be split",
                      args->num_layers, args->num_pieces, args->num_stages, MAX_NODES);
    return TV_OK;
}

static tv_status_t split_search(const struct chain *c, struct tv_unit_range *ranges_out,
                                double *largest_out)
{
    const size_t num_stages = (size_t)c->args->num_stages;
    struct search s = {.chain = c,
                       .stages = calloc(num_stages, sizeof(*s.stages)),
                       .num_pieces_left = calloc(num_stages, sizeof(*s.num_pieces_left)),
                       .range = calloc((size_t)c->args->num_pieces, sizeof(*s.range)),
                       .best = ranges_out};
    const bool have = s.stages != NULL && s.num_pieces_left != NULL && s.range != NULL;
    const tv_status_t status =
        have ? run_search(&s) : TV_ERR(TV_NO_MEMORY, "a split over %zu stages", num_stages);
    *largest_out = s.largest;
    free(s.range);
    free(s.num_pieces_left);
    free(s.stages);
    return status;
}

static bool is_one_piece_a_stage(const struct tv_partition_args *args)
{
    for (int i = 0; i < args->num_pieces; i++) {
        for (int j = 0; j < i; j++) {
            if (args->stage_of[i] == args->stage_of[j])
                return false;
        }
    }
    return true;
}

tv_status_t tv_partition_search(const struct tv_partition_args *args, enum tv_partition_by by,
                                struct tv_unit_range *ranges_out, double *largest_out)
{
    struct chain c = {args, by, args->num_layers + 2, tv_partition_limit(args, by), NULL};
    c.before = calloc((size_t)c.num_units + 1, sizeof(*c.before));
    if (c.before == NULL)
        return TV_ERR(TV_NO_MEMORY, "a split of %d units", c.num_units);
    for (int u = 0; u < c.num_units; u++) {
        const struct tv_unit_cost *sum = &c.before[u], *unit = &args->units[u];
        c.before[u + 1] = (struct tv_unit_cost){
            sum->seconds + unit->seconds, sum->fixed_bytes + unit->fixed_bytes,
            sum->slot_bytes + unit->slot_bytes, sum->work_bytes + unit->work_bytes};
    }
    const tv_status_t status = is_one_piece_a_stage(args)
                                   ? split_chain(&c, ranges_out, largest_out)
                                   : split_search(&c, ranges_out, largest_out);
    free(c.before);
    return status;
}
