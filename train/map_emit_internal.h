/* train/map_emit_internal.h -- what the kinds of --emit share. */
#ifndef TV_TRAIN_MAP_EMIT_INTERNAL_H
#define TV_TRAIN_MAP_EMIT_INTERNAL_H
#include "train/map_emit.h"

TV_BEGIN_C
/* Ranks [first, first + num) of the job, all on one node. */
struct tv_launch_run {
    int node, first, num;
};
/* The job's ranks in order. Tensor is always fastest; next comes data and then pipe, as in the mesh,
 * or with is_data_outer pipe and then data. */
struct tv_launch {
    const struct tv_map_plan *plan;
    int is_data_outer;
    struct tv_launch_run *runs; /* [num_runs] owned; neighbours are on different nodes */
    int num_runs;
    int split_node; /* one that has several runs, or -1 */
};

struct tv_emission {
    const struct tv_map_plan *plan;
    const char *path; /* the file, for the lines that say how to use it */
    FILE *out;
    FILE *notes; /* where those lines go */
    const char *prefix;
};

/* Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_launch_make(const struct tv_map_plan *plan, int is_data_outer,
                                         struct tv_launch *launch_out);
struct tv_device_place tv_launch_place(const struct tv_launch *launch, int rank);
/* "2,3,0": the GPUs of a run in the order of its ranks. */
void tv_launch_print_gpus(const struct tv_launch *launch, const struct tv_launch_run *run,
                          FILE *out);
void tv_emission_note(const struct tv_emission *e, const char *format, ...) TV_PRINTF(2, 3);

/* map_emit_scripts.c: torchrun, Megatron-LM and DeepSpeed, which start the ranks of a node as one
 * block. Errors: TV_UNSUPPORTED when the layout is not so. */
TV_MUST_CHECK tv_status_t tv_emit_torchrun(const struct tv_emission *e);
TV_MUST_CHECK tv_status_t tv_emit_megatron(const struct tv_emission *e);
TV_MUST_CHECK tv_status_t tv_emit_deepspeed(const struct tv_emission *e);
TV_END_C
#endif
