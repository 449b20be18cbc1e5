/* train/map_machines.c -- a few lines about nodes, links and network, and a row per node. */
#include "train/map_report.h"
#include "train/terminal.h"
#include <string.h>

enum { NAME_COLUMNS = 24, MOST_ROWS = 24, FIRST_ROWS = 16, LAST_ROWS = 4 };

/* How the GPUs of a node are joined. */
static void describe_links(const struct tv_node_shape *shape, char *text, size_t bytes)
{
    int num_linked = 0;
    for (int i = 0; i < shape->num_gpus && shape->links_kind == TV_LINKS_MATRIX; i++) {
        for (int j = 0; j < i; j++)
            num_linked += shape->links[i * shape->num_gpus + j] > 0;
    }
    const int num_pairs = shape->num_gpus * (shape->num_gpus - 1) / 2;
    if (shape->links_kind == TV_LINKS_SWITCH)
        snprintf(text, bytes, "joined by a switch, %.4g GB/s each", shape->gpu_gbps);
    else if (shape->links_kind == TV_LINKS_UNKNOWN)
        snprintf(text, bytes, "links unknown, %.4g GB/s each", shape->gpu_gbps);
    else
        snprintf(text, bytes, "%d of %d pairs linked, %.4g GB/s each", num_linked, num_pairs,
                 shape->gpu_gbps);
}

static void print_shape(const struct tv_topology *topology, int index, int columns, FILE *out)
{
    const struct tv_node_shape *shape = &topology->shapes[index];
    int num = 0, first = -1, last = -1;
    for (int n = 0; n < topology->num_nodes; n++) {
        if (topology->nodes[n].shape == index) {
            first = first < 0 ? n : first;
            last = n;
            num++;
        }
    }
    if (num == 0)
        return;
    char links[96], nics[64], line[512];
    describe_links(shape, links, sizeof(links));
    if (shape->num_nics == 0)
        snprintf(nics, sizeof(nics), "no NIC known, %.4g GB/s assumed", shape->nic_gbps);
    else
        snprintf(nics, sizeof(nics), "%d NIC%s, %.4g GB/s in all", shape->num_nics,
                 shape->num_nics == 1 ? "" : "s", shape->nic_gbps);
    const char *model = shape->num_gpus > 0 ? shape->gpus[0].model : "";
    snprintf(line, sizeof(line), "%d x %d %s%s%s%s%s, %s; %d NUMA node%s; %s:", num,
             shape->num_gpus, shape->is_cpu ? "CPU place" : "GPU", shape->num_gpus == 1 ? "" : "s",
             model[0] != '\0' ? " (" : "", model, model[0] != '\0' ? ")" : "", links,
             shape->num_numas, shape->num_numas == 1 ? "" : "s", nics);
    struct tv_paragraph p = {out, 2, 2, columns};
    fputs("  ", out);
    tv_paragraph_text(&p, line);
    tv_paragraph_text(&p, topology->nodes[first].name);
    if (num > 1) {
        tv_paragraph_text(&p, num == last - first + 1 ? "to" : "...");
        tv_paragraph_text(&p, topology->nodes[last].name);
    }
    fputc('\n', out);
}

static int depth_of(const struct tv_topology *topology, int v)
{
    int depth = 0;
    while ((v = topology->switches[v].parent) >= 0)
        depth++;
    return depth;
}

/* One line per level, from the root: how many switches, and their uplinks. */
static void print_network(const struct tv_topology *topology, FILE *out)
{
    for (int level = 0, num = 1; num > 0; level++) {
        double least = 0, most = 0;
        num = 0;
        for (int v = 0; v < topology->num_switches; v++) {
            const double gbps = topology->switches[v].uplink_gbps;
            if (depth_of(topology, v) != level)
                continue;
            least = num == 0 || gbps < least ? gbps : least;
            most = num == 0 || gbps > most ? gbps : most;
            num++;
        }
        if (num == 0)
            break;
        fprintf(out, "  level %d: %d switch%s", level, num, num == 1 ? "" : "es");
        if (level > 0 && most == 0)
            fputs(", uplinks as fast as what is below", out);
        else if (level > 0 && least == most)
            fprintf(out, ", uplinks of %.4g GB/s", least);
        else if (level > 0)
            fprintf(out, ", uplinks up to %.4g GB/s", most);
        fputc('\n', out);
    }
}

void tv_map_print_machines(const struct tv_map_plan *plan, int columns, FILE *out)
{
    const struct tv_topology *topology = &plan->topology;
    fprintf(out, "machines: %d node%s, %d device%s\n", topology->num_nodes,
            topology->num_nodes == 1 ? "" : "s", tv_map_plan_num_devices(plan),
            tv_map_plan_num_devices(plan) == 1 ? "" : "s");
    for (int s = 0; s < topology->num_shapes; s++)
        print_shape(topology, s, columns, out);
    if (topology->num_domains > 0)
        fprintf(out, "  %d NVLink domain%s of several nodes\n", topology->num_domains,
                topology->num_domains == 1 ? "" : "s");
    if (topology->num_switches == 0) {
        fputs("network: unknown; every node is taken to reach every other at its own rate\n", out);
        return;
    }
    fputs("network:\n", out);
    print_network(topology, out);
}

/* ---- a row per node ---- */

static int name_columns(const struct tv_topology *topology)
{
    int widest = 4;
    for (int n = 0; n < topology->num_nodes; n++) {
        const int length = (int)strlen(topology->nodes[n].name);
        widest = length > widest ? length : widest;
    }
    return widest < NAME_COLUMNS ? widest : NAME_COLUMNS;
}

/* Cells on a line: all, or the largest power of two that fits. */
static int cells_per_line(int num, int columns, int cell_columns)
{
    const int most = columns / (cell_columns + 1);
    int fit = 1;
    while (2 * fit <= most)
        fit *= 2;
    return num <= most ? num : fit;
}

static void print_cell(const struct tv_map_plan *plan, int device, int columns, int is_coloured,
                       FILE *out)
{
    char cell[48] = "-";
    const int rank = plan->mesh_rank_at[device];
    const struct tv_mesh_coord c = tv_mesh_coord_of(plan->args.extent, rank < 0 ? 0 : rank);
    if (rank >= 0)
        snprintf(cell, sizeof(cell), "%d.%d.%d", c.at[TV_PIPE], c.at[TV_DATA], c.at[TV_TENSOR]);
    if (is_coloured && rank >= 0)
        fprintf(out, " \033[%dm%*s\033[0m", 31 + c.at[TV_PIPE] % 6, columns, cell);
    else
        fprintf(out, " %*s", columns, cell);
}

static void print_node(const struct tv_map_plan *plan, int node, struct tv_paragraph p,
                       int is_coloured)
{
    const int first = plan->first_device[node], num = plan->first_device[node + 1] - first;
    const struct tv_mesh_coord e = plan->args.extent;
    const int columns =
        snprintf(NULL, 0, "%d.%d.%d", e.at[TV_PIPE] - 1, e.at[TV_DATA] - 1, e.at[TV_TENSOR] - 1);
    const int per_line = cells_per_line(num, p.columns - p.indent, columns);
    fprintf(p.out, "  %-*.*s", p.indent - 2, p.indent - 2, plan->topology.nodes[node].name);
    for (int i = 0; i < num; i++) {
        if (i > 0 && i % per_line == 0)
            fprintf(p.out, "\n%*s", p.indent, "");
        print_cell(plan, first + i, columns, is_coloured, p.out);
    }
    fputc('\n', p.out);
}

void tv_map_draw_nodes(const struct tv_map_plan *plan, int columns, int is_coloured, FILE *out)
{
    const int num_nodes = plan->topology.num_nodes;
    const int indent = name_columns(&plan->topology) + 2;
    const struct tv_paragraph p = {out, indent, indent, columns};
    fputs("\nnodes: the coordinate p.d.t of each device, in the order of devices\n", out);
    for (int n = 0; n < num_nodes; n++) {
        if (num_nodes > MOST_ROWS && n == FIRST_ROWS) {
            n = num_nodes - LAST_ROWS;
            fprintf(out, "  ... %d more nodes ...\n", n - FIRST_ROWS);
        }
        print_node(plan, n, p, is_coloured);
    }
}
