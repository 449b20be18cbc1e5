/* train/map_text.c -- the report of `trivet map` for people. */
#include "train/map_report.h"
#include "train/terminal.h"
#include <string.h>

enum { LEAST_COLUMNS = 60, NODE_COLUMNS = 24, MOST_ROWS = 32, EDGE_ROWS = 8, MOST_UNUSED = 12 };

static void print_mesh(const struct tv_map_plan *plan, FILE *out)
{
    const struct tv_mesh_coord e = plan->args.extent;
    const struct tv_traffic *traffic = &plan->args.traffic;
    fprintf(out, "mesh: pp %d x dp %d x tp %d = %d rank%s, %d device%s unused\n", e.at[TV_PIPE],
            e.at[TV_DATA], e.at[TV_TENSOR], plan->map.num_ranks,
            plan->map.num_ranks == 1 ? "" : "s", plan->map.num_unused,
            plan->map.num_unused == 1 ? "" : "s");
    fprintf(out, "traffic per step and group: tensor %.4g, pipeline %.4g, data %.4g GB\n",
            traffic->load[TV_TENSOR] / 1e9, traffic->load[TV_PIPE] / 1e9,
            traffic->load[TV_DATA] / 1e9);
}

/* split < 0: not known. */
static void print_cost(const char *name, const struct tv_map_cost *cost, int split, FILE *out)
{
    fprintf(out, "  %-9s %12.6g %12.6g %12.6g %12.6g", name, 1e3 * cost->total,
            1e3 * cost->axis[TV_TENSOR], 1e3 * cost->axis[TV_PIPE], 1e3 * cost->axis[TV_DATA]);
    if (split >= 0)
        fprintf(out, " %8d", split);
    fputc('\n', out);
}

static void print_costs(const struct tv_map *map, FILE *out)
{
    fprintf(out, "\n  %-9s %12s %12s %12s %12s %8s\n", "cost, ms", "total", "tensor", "pipeline",
            "data", "split tp");
    print_cost("chosen", &map->chosen, map->split_tensor_groups, out);
    print_cost("identity", &map->identity, map->identity_split_tensor_groups, out);
    print_cost("worst", &map->worst, -1, out);
    fputs("identity: mesh ranks in the order of arrival; worst: of all orders of the axes;\n"
          "split tp: tensor groups that leave their node or NVLink domain.\n",
          out);
    if (map->is_exact)
        fputs("No layout costs less than the chosen one.\n", out);
    else
        fprintf(out,
                "No layout costs less than %.6g ms; whether one costs less than the chosen\n"
                "one is not known.\n",
                1e3 * map->lower_bound);
}

static void print_row(const struct tv_map_plan *plan, int arrival, FILE *out)
{
    const struct tv_device_place place = plan->map.places[arrival];
    const struct tv_gpu *gpu = tv_map_plan_gpu(plan, place);
    const struct tv_mesh_coord c =
        tv_mesh_coord_of(plan->args.extent, plan->map.mesh_rank[arrival]);
    char numa[16] = "-";
    if (gpu->numa >= 0)
        snprintf(numa, sizeof(numa), "%d", gpu->numa);
    fprintf(out, "  %7d %-*.*s %6d %-12s %4s  %d.%d.%d\n", arrival, NODE_COLUMNS, NODE_COLUMNS,
            plan->topology.nodes[place.node].name, place.device,
            gpu->pci[0] != '\0' ? gpu->pci : "-", numa, c.at[TV_PIPE], c.at[TV_DATA],
            c.at[TV_TENSOR]);
}

/* Ranks in the order of arrival; of many the first and the last. */
static void print_placement(const struct tv_map_plan *plan, FILE *out)
{
    const struct tv_map *map = &plan->map;
    const int is_cut = map->num_ranks > MOST_ROWS;
    fprintf(out, "\n  %7s %-*s %6s %-12s %4s  %s\n", "arrival", NODE_COLUMNS, "node", "device",
            "pci", "numa", "p.d.t");
    int row = 0;
    for (int i = 0; i < map->num_arrivals; i++) {
        if (map->mesh_rank[i] < 0)
            continue;
        if (is_cut && row == EDGE_ROWS)
            fprintf(out, "  ... %d more ranks; --json has them all ...\n",
                    map->num_ranks - 2 * EDGE_ROWS);
        if (!is_cut || row < EDGE_ROWS || row >= map->num_ranks - EDGE_ROWS)
            print_row(plan, i, out);
        row++;
    }
}

static void print_unused(const struct tv_map_plan *plan, int columns, FILE *out)
{
    const struct tv_map *map = &plan->map;
    char word[TV_TOPO_NAME + 16];
    if (map->num_unused == 0)
        return;
    struct tv_paragraph p = {out, 2, 0, columns};
    p.column = fprintf(out, "\nunused (node/device):") - 1;
    for (int i = 0; i < map->num_unused && i < MOST_UNUSED; i++) {
        snprintf(word, sizeof(word), "%s/%d", plan->topology.nodes[map->unused[i].node].name,
                 map->unused[i].device);
        tv_paragraph_text(&p, word);
    }
    if (map->num_unused > MOST_UNUSED) {
        snprintf(word, sizeof(word), "and %d more", map->num_unused - MOST_UNUSED);
        tv_paragraph_text(&p, word);
    }
    fputc('\n', out);
}

static void print_warnings(char *const *warnings, int num, int columns, FILE *out)
{
    for (int i = 0; i < num; i++) {
        struct tv_paragraph p = {out, 2, 2, columns};
        fputs("! ", out);
        tv_paragraph_text(&p, warnings[i]);
        fputc('\n', out);
    }
}

void tv_map_print_text(const struct tv_map_plan *plan, int columns, int is_coloured, FILE *out)
{
    const struct tv_map *map = &plan->map;
    if (columns < LEAST_COLUMNS)
        columns = LEAST_COLUMNS;
    tv_map_print_machines(plan, columns, out);
    print_mesh(plan, out);
    print_costs(map, out);
    print_placement(plan, out);
    tv_map_draw_nodes(plan, columns, is_coloured, out);
    print_unused(plan, columns, out);
    if (plan->topology.num_warnings + map->num_warnings > 0)
        fputs("\nwarnings:\n", out);
    print_warnings(plan->topology.warnings, plan->topology.num_warnings, columns, out);
    print_warnings(map->warnings, map->num_warnings, columns, out);
}
