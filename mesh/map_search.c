/* mesh/map_search.c -- candidates, and the cheapest of them. */
#include "mesh/map_internal.h"
#include <stdlib.h>
#include <string.h>

const enum tv_mesh_axis tv_map_orders[6][TV_NUM_AXES] = {
    {TV_TENSOR, TV_DATA, TV_PIPE}, {TV_TENSOR, TV_PIPE, TV_DATA}, {TV_DATA, TV_TENSOR, TV_PIPE},
    {TV_PIPE, TV_TENSOR, TV_DATA}, {TV_DATA, TV_PIPE, TV_TENSOR}, {TV_PIPE, TV_DATA, TV_TENSOR}};

tv_status_t tv_map_best_create(int num_devices, struct tv_map_best *best_out)
{
    struct tv_map_best best = {.cell_of = malloc((size_t)num_devices * sizeof(int))};
    if (best.cell_of == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: layout of %d devices", num_devices);
    *best_out = best;
    return TV_OK;
}

void tv_map_best_free(struct tv_map_best *best)
{
    free(best->cell_of);
    *best = (struct tv_map_best){0};
}

void tv_map_offer(const struct tv_map_problem *problem, const int *cell_of,
                  struct tv_map_best *best)
{
    struct tv_map_score score;
    tv_map_score_of(problem, cell_of, &score);
    if (best->has_layout && !tv_map_is_better(&score, &best->score))
        return;
    memcpy(best->cell_of, cell_of, (size_t)problem->tree->num_devices * sizeof(*cell_of));
    best->score = score;
    best->has_layout = 1;
}

int tv_map_cell_at(struct tv_mesh_coord extent, const enum tv_mesh_axis order[TV_NUM_AXES],
                   const int digit[TV_NUM_AXES])
{
    struct tv_mesh_coord at = {{0}};
    for (int k = 0; k < TV_NUM_AXES; k++)
        at.at[order[k]] = digit[k];
    return tv_mesh_rank_of(extent, at);
}

void tv_map_row_major(const struct tv_map_problem *problem,
                      const enum tv_mesh_axis order[TV_NUM_AXES], int *cell_of)
{
    const int line = problem->extent.at[order[0]], plane = problem->extent.at[order[1]];
    for (int i = 0; i < problem->tree->num_devices; i++) {
        const int digit[] = {i % line, i / line % plane, i / line / plane};
        cell_of[i] = i < problem->num_cells ? tv_map_cell_at(problem->extent, order, digit) : -1;
    }
}

/* All devices of the tree are used. */
static tv_status_t search_full(const struct tv_map_problem *problem, struct tv_map_best *best)
{
    int *cell_of = malloc((size_t)problem->tree->num_devices * sizeof(*cell_of));
    if (cell_of == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: layout of %d devices", problem->tree->num_devices);
    int has_boxes = 0;
    tv_status_t status = tv_map_boxes(problem, cell_of, &has_boxes);
    if (status == TV_OK && has_boxes)
        tv_map_offer(problem, cell_of, best);
    for (int k = 0; k < 6 && status == TV_OK; k++) {
        status = tv_map_pack(problem, tv_map_orders[k], cell_of);
        if (status == TV_OK)
            tv_map_offer(problem, cell_of, best);
    }
    free(cell_of);
    return status;
}

tv_status_t tv_map_search(const struct tv_map_problem *problem, struct tv_map_best *best,
                          int *is_exact_out)
{
    *is_exact_out = 0;
    return search_full(problem, best);
}
