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

static int is_power_of_two(int n)
{
    return (n & (n - 1)) == 0;
}

/* All devices of the tree are used. */
static tv_status_t search_full(const struct tv_map_problem *problem, struct tv_map_best *best)
{
    const size_t num = (size_t)problem->tree->num_devices;
    int *cell_of = malloc(num * sizeof(*cell_of));
    if (cell_of == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: layout of %zu devices", num);
    int has_boxes = 0, is_glued = 0;
    tv_status_t status = tv_map_boxes(problem, cell_of, &has_boxes);
    if (status == TV_OK && has_boxes)
        tv_map_offer(problem, cell_of, best);
    const int is_settled = has_boxes && is_power_of_two(problem->num_cells);
    for (int k = 0; k < 6 && status == TV_OK && !is_settled; k++) {
        status = tv_map_pack(problem, tv_map_orders[k], cell_of);
        if (status == TV_OK)
            tv_map_offer(problem, cell_of, best);
    }
    if (status == TV_OK)
        status = tv_map_glue(problem, cell_of, &is_glued);
    if (status == TV_OK && is_glued)
        tv_map_offer(problem, cell_of, best);
    if (status == TV_OK && !is_settled)
        tv_map_swap(problem, best);
    free(cell_of);
    return status;
}

typedef tv_status_t (*search_fn)(const struct tv_map_problem *problem, struct tv_map_best *best);

/* Search the part of the tree with is_used alone, and offer what was found. */
static tv_status_t search_part(const struct tv_map_problem *problem, const unsigned char *is_used,
                               search_fn search, struct tv_map_best *best)
{
    const int num = problem->tree->num_devices;
    struct tv_map_tree tree;
    struct tv_map_problem part = {0};
    struct tv_map_best found = {0};
    TV_TRY(tv_map_tree_restrict(problem->tree, is_used, &tree));
    int *cell_of = malloc((size_t)num * sizeof(*cell_of));
    tv_status_t status =
        cell_of != NULL ? TV_OK : TV_ERR(TV_NO_MEMORY, "mapper: layout of %d devices", num);
    if (status == TV_OK)
        status = tv_map_problem_create(&tree, problem->extent, &problem->traffic, &part);
    if (status == TV_OK)
        status = tv_map_best_create(tree.num_devices, &found);
    if (status == TV_OK)
        status = search(&part, &found);
    for (int i = 0; i < num && status == TV_OK; i++)
        cell_of[i] = -1;
    for (int i = 0; i < tree.num_devices && status == TV_OK; i++)
        cell_of[tree.devices[i].origin] = found.cell_of[i];
    if (status == TV_OK)
        tv_map_offer(problem, cell_of, best);
    tv_map_best_free(&found);
    tv_map_problem_free(&part);
    free(cell_of);
    tv_map_tree_free(&tree);
    return status;
}

tv_status_t tv_map_search(const struct tv_map_problem *problem, struct tv_map_best *best,
                          int *is_exact_out)
{
    const int num = problem->tree->num_devices;
    *is_exact_out = 0;
    if (num == problem->num_cells) {
        TV_TRY(search_full(problem, best));
        return tv_map_exact(problem, best, is_exact_out);
    }
    unsigned char *is_used = malloc((size_t)num);
    if (is_used == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: spares of %d devices", num);
    tv_status_t status = TV_OK;
    for (int policy = 0; policy < TV_MAP_NUM_SPARE_POLICIES && status == TV_OK; policy++) {
        status = tv_map_choose_spares(problem, policy, is_used);
        if (status == TV_OK)
            status = search_part(problem, is_used, search_full, best);
    }
    free(is_used);
    return status == TV_OK ? tv_map_exact(problem, best, is_exact_out) : status;
}

static tv_status_t search_any(const struct tv_map_problem *problem, struct tv_map_best *best)
{
    int is_exact;
    return tv_map_search(problem, best, &is_exact);
}

tv_status_t tv_map_search_sound(const struct tv_map_problem *problem, struct tv_map_best *best,
                                int *is_exact_out)
{
    const struct tv_map_tree *tree = problem->tree;
    int left = tree->num_devices - problem->num_cells, num_dropped = 0;
    unsigned char *is_used = malloc((size_t)tree->num_devices);
    if (is_used == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: spares of %d devices", tree->num_devices);
    for (int i = tree->num_devices - 1; i >= 0; i--) {
        is_used[i] = !(tree->devices[i].is_suspicious && left > 0);
        left -= !is_used[i];
        num_dropped += !is_used[i];
    }
    *is_exact_out = 0;
    const tv_status_t status = num_dropped > 0 ? search_part(problem, is_used, search_any, best)
                                               : tv_map_search(problem, best, is_exact_out);
    free(is_used);
    return status;
}
