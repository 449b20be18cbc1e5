/* mesh/map_glue.c -- tensor groups as units: where every vertex that holds one holds only whole
 * ones, a layout of P D groups is sought in place of P D T cells, which exact search can afford. */
#include "mesh/map_internal.h"
#include <math.h>
#include <stdlib.h>

static int size_of(const struct tv_map_tree *tree, int v)
{
    return tree->vertices[v].end - tree->vertices[v].begin;
}

/* Children of v with T devices or more. */
static int count_large(const struct tv_map_tree *tree, int v, int T, int *num_small_out)
{
    int num_large = 0;
    *num_small_out = 0;
    for (int c = v + 1; c < tree->vertices[v].next; c = tree->vertices[c].next) {
        num_large += size_of(tree, c) >= T;
        *num_small_out += size_of(tree, c) < T;
    }
    return num_large;
}

static int can_glue(const struct tv_map_tree *tree, int T)
{
    for (int v = 0; v < tree->num_vertices; v++) {
        int num_small;
        if (size_of(tree, v) < T)
            continue;
        if (size_of(tree, v) % T != 0 || (count_large(tree, v, T, &num_small) > 0 && num_small > 0))
            return 0;
    }
    return 1;
}

/* The tree above the units; a unit is T neighbouring devices. */
static tv_status_t glue_tree(const struct tv_map_tree *tree, int T, struct tv_map_tree *glued_out)
{
    const int num_units = tree->num_devices / T;
    struct tv_map_tree glued;
    TV_TRY(tv_map_tree_alloc(tree->num_vertices + num_units, num_units, &glued));
    for (int v = 0; v < tree->num_vertices; v++) {
        struct tv_map_vertex vertex = tree->vertices[v];
        int num_small;
        if (size_of(tree, v) < T)
            continue;
        const int holds_units = count_large(tree, v, T, &num_small) == 0;
        vertex.begin /= T;
        vertex.end /= T;
        glued.vertices[glued.num_vertices++] = vertex;
        for (int u = vertex.begin; u < vertex.end && holds_units; u++)
            glued.vertices[glued.num_vertices++] =
                (struct tv_map_vertex){.begin = u, .end = u + 1, .rate = INFINITY};
    }
    for (int u = 0; u < num_units; u++) {
        glued.devices[u] = tree->devices[u * T];
        glued.devices[u].origin = u;
    }
    glued.num_devices = num_units;
    tv_map_tree_number(&glued, 0);
    *glued_out = glued;
    return TV_OK;
}

static tv_status_t search_glued(const struct tv_map_problem *problem,
                                const struct tv_map_tree *glued, int *cell_of)
{
    const int T = problem->extent.at[TV_TENSOR];
    struct tv_mesh_coord extent = problem->extent;
    struct tv_traffic traffic = problem->traffic;
    extent.at[TV_TENSOR] = 1;
    traffic.load[TV_PIPE] *= T;
    traffic.load[TV_DATA] *= T;
    struct tv_map_problem units;
    struct tv_map_best best = {0};
    int is_exact;
    TV_TRY(tv_map_problem_create(glued, extent, &traffic, &units));
    tv_status_t status = tv_map_best_create(glued->num_devices, &best);
    if (status == TV_OK)
        status = tv_map_search(&units, &best, &is_exact);
    for (int i = 0; status == TV_OK && i < problem->num_cells; i++)
        cell_of[i] = best.cell_of[i / T] * T + i % T;
    tv_map_best_free(&best);
    tv_map_problem_free(&units);
    return status;
}

tv_status_t tv_map_glue(const struct tv_map_problem *problem, int *cell_of, int *was_made_out)
{
    const int T = problem->extent.at[TV_TENSOR];
    *was_made_out = 0;
    if (T == 1 || problem->num_cells / T > 16 || !can_glue(problem->tree, T))
        return TV_OK;
    struct tv_map_tree glued;
    TV_TRY(glue_tree(problem->tree, T, &glued));
    const tv_status_t status = search_glued(problem, &glued, cell_of);
    *was_made_out = status == TV_OK;
    tv_map_tree_free(&glued);
    return status;
}
