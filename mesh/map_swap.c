/* mesh/map_swap.c -- better layouts by exchange: two cells, or two whole lines of an axis, change
 * places while that lowers the score. Steps are counted, not timed, so that every rank and every
 * run stops at the same layout. */
#include "mesh/map_internal.h"
#include <string.h>

enum { MAX_VISITS = 40 * 1000 * 1000 };

struct swapping {
    const struct tv_map_problem *problem;
    struct tv_map_best *best;
    int device_of[TV_MAP_MAX_SWAPPED];
    long visits_left, visits; /* devices looked at, in all and by one score */
};

/* Exchange cells x and y and their next `num` - 1 at distance `stride`. */
static void exchange(struct swapping *swapping, int x, int y, int num, int stride)
{
    int *cell_of = swapping->best->cell_of, *device_of = swapping->device_of;
    for (int k = 0; k < num; k++, x += stride, y += stride) {
        const int device = device_of[x];
        device_of[x] = device_of[y];
        device_of[y] = device;
        cell_of[device_of[x]] = x;
        cell_of[device_of[y]] = y;
    }
}

static int try_exchange(struct swapping *swapping, int x, int y, int num, int stride)
{
    struct tv_map_score score;
    exchange(swapping, x, y, num, stride);
    tv_map_score_of(swapping->problem, swapping->best->cell_of, &score);
    swapping->visits_left -= swapping->visits;
    if (tv_map_is_better(&score, &swapping->best->score)) {
        swapping->best->score = score;
        return 1;
    }
    exchange(swapping, x, y, num, stride);
    return 0;
}

/* All pairs of lines of `num` cells at distance `stride`; 1 if any exchange was kept. */
static int try_lines(struct swapping *swapping, int num, int stride)
{
    int has_gained = 0;
    const int num_cells = swapping->problem->num_cells, block = num * stride;
    for (int x = 0; x < num_cells; x++) {
        for (int y = x + 1; y < num_cells && swapping->visits_left > 0; y++) {
            if (x % block / stride == 0 && y % block / stride == 0)
                has_gained |= try_exchange(swapping, x, y, num, stride);
        }
    }
    return has_gained;
}

void tv_map_swap(const struct tv_map_problem *problem, struct tv_map_best *best)
{
    const struct tv_map_tree *tree = problem->tree;
    if (problem->num_cells > TV_MAP_MAX_SWAPPED || tree->num_devices != problem->num_cells)
        return;
    struct swapping swapping = {.problem = problem, .best = best, .visits_left = MAX_VISITS};
    for (int v = 0; v < tree->num_vertices; v++)
        swapping.visits += TV_NUM_AXES * (tree->vertices[v].end - tree->vertices[v].begin);
    for (int i = 0; i < tree->num_devices; i++)
        swapping.device_of[best->cell_of[i]] = i;
    const int D = problem->extent.at[TV_DATA], T = problem->extent.at[TV_TENSOR];
    for (int has_gained = 1; has_gained && swapping.visits_left > 0;) {
        has_gained = try_lines(&swapping, T, 1);
        has_gained |= try_lines(&swapping, D, T);
        has_gained |= try_lines(&swapping, problem->extent.at[TV_PIPE], D * T);
        has_gained |= try_lines(&swapping, 1, 1);
    }
}
