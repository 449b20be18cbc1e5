/* train/map_json.c -- a layout as one JSON object, row by row. */
#include "train/map_report.h"

/* Names come from files: what JSON or a terminal gives a meaning is escaped, bytes beyond ASCII as
 * the characters of the same number. */
static void print_string(const char *text, FILE *out)
{
    fputc('"', out);
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if (*c < ' ' || *c > '~')
            fprintf(out, "\\u%04x", (unsigned)(unsigned char)*c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

static void print_placement(const struct tv_map_plan *plan, FILE *out)
{
    const struct tv_map *map = &plan->map;
    const char *separator = "";
    fputs("{\"placement\":[", out);
    for (int i = 0; i < map->num_arrivals; i++) {
        if (map->mesh_rank[i] < 0)
            continue;
        const struct tv_device_place place = map->places[i];
        const struct tv_gpu *gpu = tv_map_plan_gpu(plan, place);
        const struct tv_mesh_coord c = tv_mesh_coord_of(plan->args.extent, map->mesh_rank[i]);
        fprintf(out, "%s{\"rank\":%d,\"node\":", separator, i);
        print_string(plan->topology.nodes[place.node].name, out);
        fprintf(out, ",\"device\":%d,\"pci\":", place.device);
        print_string(gpu->pci, out);
        fprintf(out, ",\"numa\":%d,\"coordinate\":[%d,%d,%d]}", gpu->numa, c.at[TV_PIPE],
                c.at[TV_DATA], c.at[TV_TENSOR]);
        separator = ",\n";
    }
    fputs("]", out);
}

static void print_cost(const char *name, const struct tv_map_cost *cost, FILE *out)
{
    fprintf(out, "\"%s\":{\"total\":%.17g,\"tensor\":%.17g,\"pipeline\":%.17g,\"data\":%.17g}",
            name, cost->total, cost->axis[TV_TENSOR], cost->axis[TV_PIPE], cost->axis[TV_DATA]);
}

static void print_warnings(const char *const *warnings, int num, const char **separator, FILE *out)
{
    for (int i = 0; i < num; i++) {
        fputs(*separator, out);
        print_string(warnings[i], out);
        *separator = ",";
    }
}

void tv_map_print_json(const struct tv_map_plan *plan, FILE *out)
{
    const struct tv_map *map = &plan->map;
    print_placement(plan, out);
    fputs(",\n\"cost\":{", out);
    print_cost("chosen", &map->chosen, out);
    fputc(',', out);
    print_cost("identity", &map->identity, out);
    fputc(',', out);
    print_cost("worst", &map->worst, out);
    fprintf(out, "},\n\"split_tensor_groups\":%d,\n\"unused\":[", map->split_tensor_groups);
    for (int i = 0; i < map->num_unused; i++) {
        fprintf(out, "%s{\"node\":", i > 0 ? "," : "");
        print_string(plan->topology.nodes[map->unused[i].node].name, out);
        fprintf(out, ",\"device\":%d}", map->unused[i].device);
    }
    const char *separator = "";
    fputs("],\n\"warnings\":[", out);
    print_warnings((const char *const *)plan->topology.warnings, plan->topology.num_warnings,
                   &separator, out);
    print_warnings((const char *const *)map->warnings, map->num_warnings, &separator, out);
    fputs("]}\n", out);
}
