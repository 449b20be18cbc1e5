/* train/map_emit.c -- the list of --emit, the order of a launch, and host files of MPI and Slurm. */
#include "train/files.h"
#include "train/map_emit_internal.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- a launch ---- */

struct tv_device_place tv_launch_place(const struct tv_launch *launch, int rank)
{
    const struct tv_mesh_coord e = launch->plan->args.extent;
    const int T = e.at[TV_TENSOR], P = e.at[TV_PIPE];
    if (launch->is_data_outer) {
        const struct tv_mesh_coord c = {{rank / T % P, rank / T / P, rank % T}};
        rank = tv_mesh_rank_of(e, c);
    }
    return launch->plan->places_of[rank];
}

tv_status_t tv_launch_make(const struct tv_map_plan *plan, int is_data_outer,
                           struct tv_launch *launch_out)
{
    struct tv_launch launch = {.plan = plan, .is_data_outer = is_data_outer, .split_node = -1};
    const int num_ranks = plan->map.num_ranks;
    char *has_run = calloc((size_t)plan->topology.num_nodes, 1);
    launch.runs = malloc((size_t)num_ranks * sizeof(*launch.runs));
    if (has_run == NULL || launch.runs == NULL) {
        free(has_run);
        free(launch.runs);
        return TV_ERR(TV_NO_MEMORY, "--emit: %d ranks", num_ranks);
    }
    for (int r = 0; r < num_ranks; r++) {
        const int node = tv_launch_place(&launch, r).node;
        if (r > 0 && launch.runs[launch.num_runs - 1].node == node) {
            launch.runs[launch.num_runs - 1].num++;
            continue;
        }
        if (has_run[node])
            launch.split_node = node;
        has_run[node] = 1;
        launch.runs[launch.num_runs++] = (struct tv_launch_run){node, r, 1};
    }
    free(has_run);
    *launch_out = launch;
    return TV_OK;
}

void tv_launch_print_gpus(const struct tv_launch *launch, const struct tv_launch_run *run,
                          FILE *out)
{
    for (int i = 0; i < run->num; i++)
        fprintf(out, "%s%d", i > 0 ? "," : "", tv_launch_place(launch, run->first + i).device);
}

void tv_emission_note(const struct tv_emission *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs(e->prefix, e->notes);
    vfprintf(e->notes, format, args);
    fputc('\n', e->notes);
    va_end(args);
}

/* ---- host files ---- */

static const char *name_of(const struct tv_emission *e, int node)
{
    return e->plan->topology.nodes[node].name;
}

/* The flags that give the mesh back to trivet. */
static void note_use(const struct tv_emission *e, const char *launcher)
{
    const struct tv_mesh_coord c = e->plan->args.extent;
    tv_emission_note(e, "Use: %s trivet train --pp %d --dp %d --tp %d --placement identity ...",
                     launcher, c.at[TV_PIPE], c.at[TV_DATA], c.at[TV_TENSOR]);
}

/* hydra fills the lines in order and merges a host only with the line before it (MPICH 4.0.2). */
static tv_status_t emit_mpich(const struct tv_emission *e)
{
    char launcher[4200];
    struct tv_launch launch;
    TV_TRY(tv_launch_make(e->plan, 0, &launch));
    snprintf(launcher, sizeof(launcher), "mpiexec -f %s -n %d", e->path, e->plan->map.num_ranks);
    note_use(e, launcher);
    tv_emission_note(e, "A node stands on several lines where its ranks are not in a row. hydra "
                        "chooses no GPU");
    tv_emission_note(e, "and binds nothing by this file: the GPUs that are meant stand behind #.");
    for (int i = 0; i < launch.num_runs; i++) {
        const struct tv_launch_run *run = &launch.runs[i];
        fprintf(e->out, "%s:%d # ranks %d-%d, GPUs ", name_of(e, run->node), run->num, run->first,
                run->first + run->num - 1);
        tv_launch_print_gpus(&launch, run, e->out);
        fputc('\n', e->out);
    }
    free(launch.runs);
    return TV_OK;
}

/* slot=S:* is every core of socket S, slot=K the K-th core. */
static tv_status_t emit_rankfile(const struct tv_emission *e)
{
    char launcher[4200];
    const int num_ranks = e->plan->map.num_ranks;
    int *num_on_node = calloc((size_t)e->plan->topology.num_nodes, sizeof(*num_on_node));
    if (num_on_node == NULL)
        return TV_ERR(TV_NO_MEMORY, "--emit rankfile: %d nodes", e->plan->topology.num_nodes);
    snprintf(launcher, sizeof(launcher), "mpirun -n %d --map-by rankfile:file=%s", num_ranks,
             e->path);
    note_use(e, launcher);
    tv_emission_note(e, "For Open MPI 5; before it: mpirun -n %d -rf %s. A rank is bound to the",
                     num_ranks, e->path);
    tv_emission_note(e, "socket of its GPU (S:*), or where that is unknown to one core. Open MPI");
    tv_emission_note(e, "chooses no GPU: the one that is meant stands behind #.");
    for (int r = 0; r < num_ranks; r++) {
        const struct tv_device_place place = e->plan->places_of[r];
        const int package = tv_map_plan_gpu(e->plan, place)->package;
        fprintf(e->out, "rank %d=%s slot=%d%s # GPU %d\n", r, name_of(e, place.node),
                package >= 0 ? package : num_on_node[place.node], package >= 0 ? ":*" : "",
                place.device);
        num_on_node[place.node]++;
    }
    free(num_on_node);
    return TV_OK;
}

static tv_status_t emit_slurm(const struct tv_emission *e)
{
    char launcher[4200];
    snprintf(launcher, sizeof(launcher), "SLURM_HOSTFILE=%s srun -n %d -m arbitrary", e->path,
             e->plan->map.num_ranks);
    note_use(e, launcher);
    tv_emission_note(e, "The allocation must hold these nodes. One line per task; it says nothing "
                        "of GPUs: the");
    tv_emission_note(e, "tasks of a node should see all of its GPUs (no --gpus-per-task), see "
                        "--json for each one's.");
    for (int r = 0; r < e->plan->map.num_ranks; r++)
        fprintf(e->out, "%s\n", name_of(e, e->plan->places_of[r].node));
    return TV_OK;
}

/* ---- the list of kinds ---- */

struct kind {
    const char *name;
    tv_status_t (*write)(const struct tv_emission *e);
    int has_comments;
};
static const struct kind kinds[] = {
    {"mpich-hostfile", emit_mpich, 1},  {"rankfile", emit_rankfile, 1},
    {"slurm-hostfile", emit_slurm, 0}, /* older versions of Slurm refuse a line that starts with # */
    {"torchrun", tv_emit_torchrun, 1},  {"megatron", tv_emit_megatron, 1},
    {"deepspeed", tv_emit_deepspeed, 1}};
enum { NUM_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* One KIND[:FILE] of the list. */
struct item {
    const struct kind *kind;
    char path[4096]; /* "": standard output */
};

/* *text moves behind the item and its comma. */
static tv_status_t next_item(const char **text, struct item *item)
{
    const char *start = *text;
    const size_t length = strcspn(start, ","), name_length = strcspn(start, ":,");
    int i = 0;
    while (i < NUM_KINDS && (strlen(kinds[i].name) != name_length ||
                             strncmp(kinds[i].name, start, name_length) != 0))
        i++;
    if (i == NUM_KINDS)
        return TV_ERR(TV_INVALID,
                      "--emit %.*s is not one of mpich-hostfile, rankfile, slurm-hostfile, "
                      "torchrun, megatron, deepspeed",
                      (int)name_length, start);
    const size_t path_length = name_length < length ? length - name_length - 1 : 0;
    if (path_length >= sizeof(item->path) || (name_length < length && path_length == 0))
        return TV_ERR(TV_INVALID, "--emit %.*s: %s", (int)name_length, start,
                      path_length == 0 ? "an empty FILE" : "a name that is too long");
    item->kind = &kinds[i];
    memcpy(item->path, start + length - path_length, path_length);
    item->path[path_length] = '\0';
    *text = start + length + (start[length] == ',');
    return TV_OK;
}

tv_status_t tv_map_emit_check(const char *text, int *to_stdout_out)
{
    int num_to_stdout = 0;
    while (text != NULL && *text != '\0') {
        struct item item;
        TV_TRY(next_item(&text, &item));
        num_to_stdout += item.path[0] == '\0';
    }
    if (num_to_stdout > 1)
        return TV_ERR(TV_INVALID, "--emit: two kinds without a FILE would be mixed on standard "
                                  "output");
    *to_stdout_out = num_to_stdout;
    return TV_OK;
}

/* Names go into scripts and host files as they are. */
static tv_status_t check_names(const struct tv_topology *topology)
{
    for (int n = 0; n < topology->num_nodes; n++) {
        const char *name = topology->nodes[n].name;
        const size_t plain =
            strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
        if (plain == 0 || name[plain] != '\0' || name[0] == '-')
            return TV_ERR(TV_INVALID, "--emit: '%s' is not the name of a host", name);
    }
    return TV_OK;
}

static tv_status_t write_text(const struct item *item, const char *text, size_t bytes, FILE *out)
{
    FILE *file = out;
    if (item->path[0] != '\0')
        TV_TRY(tv_text_file_open("emit", item->path, &file));
    fwrite(text, 1, bytes, file);
    return file == out ? TV_OK : tv_text_file_close("emit", item->path, file, TV_OK);
}

/* Into memory first: a layout that the launcher cannot have leaves no file. */
static tv_status_t write_item(const struct tv_map_plan *plan, const struct item *item, FILE *out)
{
    char *text = NULL;
    size_t bytes = 0;
    struct tv_emission e = {.plan = plan, .path = item->path[0] != '\0' ? item->path : "FILE"};
    e.out = open_memstream(&text, &bytes);
    if (e.out == NULL)
        return TV_ERR(TV_NO_MEMORY, "--emit %s", item->kind->name);
    e.notes = item->kind->has_comments ? e.out : stderr;
    e.prefix = item->kind->has_comments ? "# " : "";
    tv_status_t status = item->kind->write(&e);
    if (fclose(e.out) != 0 && status == TV_OK)
        status = TV_ERR(TV_NO_MEMORY, "--emit %s", item->kind->name);
    if (status == TV_OK)
        status = write_text(item, text, bytes, out);
    free(text);
    return status;
}

tv_status_t tv_map_emit(const struct tv_map_plan *plan, const char *text, FILE *out)
{
    TV_TRY(check_names(&plan->topology));
    while (*text != '\0') {
        struct item item;
        TV_TRY(next_item(&text, &item));
        TV_TRY(write_item(plan, &item, out));
    }
    return TV_OK;
}
