/* mesh/map_glue.c -- tensor groups as units: where every vertex that holds one holds only whole
 * ones, a layout of P D groups is sought in place of P D T cells, which exact search can afford. */
#include "mesh/map_internal.h"
#include <math.h>
#include <stdlib.h>

/* The tree above the units; a unit is T neighbouring devices. */
static tv_status_t glue_tree(const struct tv_map_tree *tree, int T, struct tv_map_tree *glued_out,
                             int *was_made_out)
{
    const int num_units = tree->num_devices / T;
    *was_made_out = 0;
    for (int v = 0; v < tree->num_vertices; v++) {
        const int size = tree->vertices[v].end - tree->vertices[v].begin;
        if (size >= T && size % T != 0)
            return TV_OK;
    }
    struct tv_map_tree glued;
    TV_TRY(tv_map_tree_alloc(tree->num_vertices + num_units, num_units, &glued));
    for (int v = 0; v < tree->num_vertices; v++) {
        struct tv_map_vertex vertex = tree->vertices[v];
        if (vertex.end - vertex.begin < T)
            continue;
        const int child = v + 1; /* the children of one vertex need not be alike */
        int has_large = 0;
        for (int c = child; c < vertex.next; c = tree->vertices[c].next)
            has_large |= tree->vertices[c].end - tree->vertices[c].begin >= T;
        vertex.begin /= T;
        vertex.end /= T;
        glued.vertices[glued.num_vertices++] = vertex;
        for (int u = vertex.begin; u < vertex.end && !has_large; u++)
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
    *was_made_out = 1;
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
    if (T == 1 || problem->num_cells / T > 16)
        return TV_OK;
    struct tv_map_tree glued;
    TV_TRY(glue_tree(problem->tree, T, &glued, was_made_out));
    if (!*was_made_out)
        return TV_OK;
    const tv_status_t status = search_glued(problem, &glued, cell_of);
    tv_map_tree_free(&glued);
    return status;
}
