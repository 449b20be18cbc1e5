/* train/map_svg.c -- machines and layout as an SVG file that needs nothing else. */
#include "train/map_loads.h"
#include "train/map_report.h"
#include <math.h>
#include <stdlib.h>

/* Pixels, and how much is drawn. */
enum {
    CELL = 38, /* a device */
    CELL_HEIGHT = 22,
    CELLS_PER_ROW = 8,
    GAP = 12,
    HEAD = 18, /* name of a node or switch */
    BAR = 6,   /* what an uplink carries */
    LEFT = 16,
    TOP = 66,
    WIDTH = 1328, /* four nodes of eight devices */
    LIST_BAR = 400,
    MOST_NODES = 512,
    MOST_SWITCHES = 64
};

static const char *const axis_colours[] = {
    [TV_PIPE] = "#3b6fb6", [TV_DATA] = "#4f9a4f", [TV_TENSOR] = "#c0392b"};
static const char *const axis_names[] = {
    [TV_PIPE] = "pipeline", [TV_DATA] = "data", [TV_TENSOR] = "tensor"};

struct svg {
    const struct tv_map_plan *plan;
    const struct tv_uplink *uplinks;
    double slowest;   /* seconds of the uplink that carries most: a full bar */
    const int *order; /* [num_drawn] nodes by leaf switch */
    int num_drawn, box_width, box_height, per_line;
    double x, y; /* of the next box */
    FILE *out;
};

static const char style[] =
    "<style>text{font:10px sans-serif;fill:#222}.m{text-anchor:middle;font-size:9px}"
    ".t{font-size:14px}.n{fill:#f6f6f6;stroke:#bbb}.g{fill:none;stroke:#222;stroke-width:1.6}"
    ".s{stroke-dasharray:3 2}.u{fill:#fff;stroke:#ccc}</style>\n";

/* Names come from files: what XML gives a meaning, and what is not plain, becomes '_'. */
static void print_name(const char *name, FILE *out)
{
    for (const char *c = name; *c != '\0'; c++) {
        const int is_plain =
            *c >= ' ' && *c <= '~' && *c != '<' && *c != '>' && *c != '&' && *c != '"';
        fputc(is_plain ? *c : '_', out);
    }
}

static double total_seconds(const struct tv_uplink *uplink)
{
    double sum = 0;
    for (int axis = 0; axis < TV_NUM_AXES; axis++)
        sum += tv_uplink_seconds(uplink, axis);
    return sum;
}

/* Shares of the axes on an uplink, on the scale of the slowest one. */
static void print_bar(const struct svg *g, const struct tv_uplink *uplink, double x, double y,
                      double width)
{
    fprintf(g->out, "<g class=\"uplink\"><title>");
    print_name(uplink->name, g->out);
    for (int axis = 0; axis < TV_NUM_AXES; axis++)
        fprintf(g->out, ", %s %.4g GB", axis_names[axis], uplink->bytes[axis] / 1e9);
    fprintf(g->out, ", %.4g ms at %.4g GB/s</title>", 1e3 * total_seconds(uplink), uplink->gbps);
    fprintf(g->out, "<rect class=\"u\" x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%d\"/>", x, y,
            width, BAR);
    for (int axis = 0; axis < TV_NUM_AXES; axis++) {
        const double seconds = tv_uplink_seconds(uplink, axis);
        const double part = g->slowest > 0 ? seconds / g->slowest * width : 0;
        if (part > 0)
            fprintf(g->out,
                    "<rect fill=\"%s\" x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%d\"/>",
                    axis_colours[axis], x, y, part, BAR);
        x += part;
    }
    fputs("</g>\n", g->out);
}

static void print_device(const struct svg *g, int rank, double x, double y)
{
    const struct tv_mesh_coord e = g->plan->args.extent;
    const struct tv_mesh_coord c = tv_mesh_coord_of(e, rank < 0 ? 0 : rank);
    if (rank < 0) {
        fprintf(g->out,
                "<rect class=\"unused\" fill=\"#ddd\" x=\"%.6g\" y=\"%.6g\" width=\"%d\" "
                "height=\"%d\"/>\n",
                x, y, CELL - 2, CELL_HEIGHT - 2);
        return;
    }
    fprintf(g->out,
            "<rect class=\"device\" fill=\"hsl(%d,60%%,78%%)\" x=\"%.6g\" y=\"%.6g\" "
            "width=\"%d\" height=\"%d\"/><text class=\"m\" x=\"%.6g\" y=\"%.6g\">%d.%d.%d</text>\n",
            (int)(360.0 * c.at[TV_PIPE] / e.at[TV_PIPE]), x, y, CELL - 2, CELL_HEIGHT - 2,
            x + (CELL - 2) / 2.0, y + 13, c.at[TV_PIPE], c.at[TV_DATA], c.at[TV_TENSOR]);
}

/* Devices side by side that are of one tensor group; dashed when it has members elsewhere. */
static void print_group(const struct svg *g, int num, double x, double y)
{
    fprintf(g->out,
            "<rect class=\"g%s\" x=\"%.6g\" y=\"%.6g\" width=\"%d\" height=\"%d\" rx=\"2\"/>\n",
            num < g->plan->args.extent.at[TV_TENSOR] ? " s" : "", x - 1, y - 1, num * CELL,
            CELL_HEIGHT);
}

static int tensor_group(const struct svg *g, int device)
{
    const int rank = g->plan->mesh_rank_at[device];
    return rank < 0 ? -1 : rank / g->plan->args.extent.at[TV_TENSOR];
}

static void print_node(const struct svg *g, int node)
{
    const struct tv_map_plan *plan = g->plan;
    const int first = plan->first_device[node], num = plan->first_device[node + 1] - first;
    fprintf(g->out, "<rect class=\"n\" x=\"%.6g\" y=\"%.6g\" width=\"%d\" height=\"%d\"/>\n", g->x,
            g->y, g->box_width, g->box_height);
    fprintf(g->out, "<text x=\"%.6g\" y=\"%.6g\">", g->x + 4, g->y + 13);
    print_name(plan->topology.nodes[node].name, g->out);
    fputs("</text>\n", g->out);
    for (int i = 0, run = 0; i < num; i++) {
        const double x = g->x + 5 + i % CELLS_PER_ROW * CELL;
        const double y = g->y + HEAD + i / CELLS_PER_ROW * (CELL_HEIGHT + 4);
        const int group = tensor_group(g, first + i);
        print_device(g, plan->mesh_rank_at[first + i], x, y);
        run++;
        if (i + 1 < num && (i + 1) % CELLS_PER_ROW != 0 && tensor_group(g, first + i + 1) == group)
            continue;
        if (group >= 0)
            print_group(g, run, x - (run - 1) * CELL, y);
        run = 0;
    }
    if (plan->topology.nodes[node].domain < 0)
        print_bar(g, &g->uplinks[node], g->x + 4, g->y + g->box_height - BAR - 3, g->box_width - 8);
}

static void print_nodes(struct svg *g)
{
    const struct tv_topology *topology = &g->plan->topology;
    const int first_switch = topology->num_nodes + topology->num_domains;
    int on_line = 0;
    g->y = TOP;
    for (int i = 0; i < g->num_drawn; i++) {
        const int leaf = topology->nodes[g->order[i]].leaf;
        const int is_new_leaf =
            leaf >= 0 && (i == 0 || topology->nodes[g->order[i - 1]].leaf != leaf);
        if (i > 0 && (is_new_leaf || on_line == g->per_line)) {
            g->y += g->box_height + GAP;
            on_line = 0;
        }
        if (is_new_leaf) {
            const struct tv_uplink *uplink = &g->uplinks[first_switch + leaf];
            fprintf(g->out, "<text x=\"%d\" y=\"%.6g\">", LEFT, g->y + 10);
            print_name(uplink->name, g->out);
            fputs("</text>\n", g->out);
            print_bar(g, uplink, LEFT + 160, g->y + 3, LIST_BAR);
            g->y += HEAD;
        }
        g->x = LEFT + on_line * (g->box_width + GAP);
        print_node(g, g->order[i]);
        on_line++;
    }
    g->y += g->box_height + GAP;
}

/* Domains, and the switches between leaves and root. */
static void print_list(struct svg *g)
{
    const struct tv_topology *topology = &g->plan->topology;
    const int first_switch = topology->num_nodes + topology->num_domains;
    int num = 0;
    for (int i = topology->num_nodes; i < first_switch + topology->num_switches; i++) {
        const int v = i - first_switch; /* < 0: a domain */
        int is_leaf = 0;
        for (int n = 0; n < topology->num_nodes && v >= 0 && !is_leaf; n++)
            is_leaf = topology->nodes[n].leaf == v;
        if (is_leaf || (v >= 0 && topology->switches[v].parent < 0) || num == MOST_SWITCHES)
            continue;
        fprintf(g->out, "<text x=\"%d\" y=\"%.6g\">", LEFT, g->y + 10);
        print_name(g->uplinks[i].name, g->out);
        fputs("</text>\n", g->out);
        print_bar(g, &g->uplinks[i], LEFT + 160, g->y + 3, LIST_BAR);
        g->y += HEAD;
        num++;
    }
}

static void print_head(const struct svg *g)
{
    const struct tv_mesh_coord e = g->plan->args.extent;
    const struct tv_map *map = &g->plan->map;
    fprintf(g->out, "<text class=\"t\" x=\"%d\" y=\"22\">", LEFT);
    fprintf(g->out, "pp %d x dp %d x tp %d: %.5g ms; in order of arrival %.5g ms", e.at[TV_PIPE],
            e.at[TV_DATA], e.at[TV_TENSOR], 1e3 * map->chosen.total, 1e3 * map->identity.total);
    if (g->num_drawn < g->plan->topology.num_nodes)
        fprintf(g->out, "; %d of %d nodes drawn", g->num_drawn, g->plan->topology.num_nodes);
    fprintf(g->out,
            "</text>\n<text x=\"%d\" y=\"40\">coordinates p.d.t, coloured by stage; a "
            "frame is a tensor group, dashed where it goes on elsewhere; bars: time on an "
            "uplink, full at %.5g ms</text>\n",
            LEFT, 1e3 * g->slowest);
    for (int axis = 0; axis < TV_NUM_AXES; axis++)
        fprintf(g->out,
                "<rect fill=\"%s\" x=\"%d\" y=\"48\" width=\"10\" height=\"8\"/>"
                "<text x=\"%d\" y=\"56\">%s</text>\n",
                axis_colours[axis], LEFT + 80 * axis, LEFT + 80 * axis + 14, axis_names[axis]);
}

/* Sizes of boxes. Heights of the whole are known at the end only: the frame is written last. */
static void measure(struct svg *g)
{
    const struct tv_topology *topology = &g->plan->topology;
    int most = 1;
    for (int s = 0; s < topology->num_shapes; s++)
        most = topology->shapes[s].num_gpus > most ? topology->shapes[s].num_gpus : most;
    const int rows = (most + CELLS_PER_ROW - 1) / CELLS_PER_ROW;
    g->box_width = (most < CELLS_PER_ROW ? most < 3 ? 3 : most : CELLS_PER_ROW) * CELL + 8;
    g->box_height = HEAD + rows * (CELL_HEIGHT + 4) + BAR + 4;
    g->per_line = (WIDTH - 2 * LEFT + GAP) / (g->box_width + GAP);
    const int num = topology->num_nodes + topology->num_domains + topology->num_switches;
    for (int i = 0; i < num; i++)
        g->slowest = fmax(g->slowest, total_seconds(&g->uplinks[i]));
}

struct leaf_order {
    int leaf, node;
};

static int by_leaf(const void *a, const void *b)
{
    const struct leaf_order *x = a, *y = b;
    return x->leaf != y->leaf ? (x->leaf > y->leaf) - (x->leaf < y->leaf)
                              : (x->node > y->node) - (x->node < y->node);
}

static tv_status_t order_nodes(const struct tv_topology *topology, int **order_out)
{
    const size_t num = (size_t)topology->num_nodes;
    struct leaf_order *keys = calloc(num, sizeof(*keys));
    int *order = calloc(num, sizeof(*order));
    if (keys == NULL || order == NULL) {
        free(keys);
        free(order);
        return TV_ERR(TV_NO_MEMORY, "--svg: %zu nodes", num);
    }
    for (size_t n = 0; n < num; n++)
        keys[n] = (struct leaf_order){topology->nodes[n].leaf, (int)n};
    qsort(keys, num, sizeof(*keys), by_leaf);
    for (size_t n = 0; n < num; n++)
        order[n] = keys[n].node;
    free(keys);
    *order_out = order;
    return TV_OK;
}

/* Drawn into memory first: only then is the height known that the first line must give. */
static tv_status_t print_svg(struct svg *g, FILE *out)
{
    char *body = NULL;
    size_t bytes = 0;
    g->out = open_memstream(&body, &bytes);
    if (g->out == NULL)
        return TV_ERR(TV_NO_MEMORY, "--svg");
    print_head(g);
    print_nodes(g);
    print_list(g);
    if (fclose(g->out) != 0) {
        free(body);
        return TV_ERR(TV_NO_MEMORY, "--svg");
    }
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" "
            "viewBox=\"0 0 %d %.0f\">\n%s<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            WIDTH, g->y + GAP, WIDTH, g->y + GAP, style);
    fwrite(body, 1, bytes, out);
    fputs("</svg>\n", out);
    free(body);
    return TV_OK;
}

tv_status_t tv_map_draw_svg(const struct tv_map_plan *plan, FILE *out)
{
    const int num_nodes = plan->topology.num_nodes;
    struct tv_uplink *uplinks = NULL;
    int *order = NULL;
    TV_TRY(tv_map_uplinks(plan, &uplinks));
    tv_status_t status = order_nodes(&plan->topology, &order);
    if (status == TV_OK) {
        struct svg g = {.plan = plan,
                        .uplinks = uplinks,
                        .order = order,
                        .num_drawn = num_nodes < MOST_NODES ? num_nodes : MOST_NODES};
        measure(&g);
        status = print_svg(&g, out);
    }
    free(order);
    free(uplinks);
    return status;
}
